//! Fields that are wrong one by one: amounts, ids, keys, numbers, versions.

use tenantry::rpc::v1;
use tonic::Code;

use crate::harness::{Bed, assert_refused, on_both_engines, request_id};

on_both_engines! {
    amounts_are_bounded
    a_request_id_is_a_uuid_of_version_4
    a_refusal_fits_into_headers_however_much_is_wrong
    an_idempotency_key_stands_for_one_payload
    a_number_that_no_enum_has_is_refused
    page_sizes_are_bounded
    a_stale_etag_is_refused
    only_fields_that_change_may_be_in_the_mask
}

fn consume(list: &[(&str, i64)], key: &str) -> v1::ConsumeRequest {
    let amounts = list.iter().map(|&(metric, amount)| v1::Amount { metric: metric.to_owned(), amount }).collect();
    v1::ConsumeRequest { amounts, idempotency_key: key.to_owned(), ..Default::default() }
}

async fn amounts_are_bounded(t: &Bed) {
    let tenant = t.tenant("amounts").await;
    let mut clients = t.with_token(&tenant.owner.token);
    let names: Vec<String> = (0..21).map(|i| format!("m{i}")).collect();
    let many: Vec<(&str, i64)> = names.iter().map(|name| (name.as_str(), 1)).collect();
    let twice = [("tokens", 1), ("tokens", 1)];
    let lists: [&[(&str, i64)]; 9] = [
        &[],
        &[("tokens", 0)],
        &[("tokens", -1)],
        &[("tokens", i64::MIN)],
        &[("tokens", i64::MAX)],
        &[("tokens", (1 << 53) + 1)],
        &[("", 1)],
        &many,
        &twice,
    ];
    for list in lists {
        let answer = clients.usage.consume(consume(list, "")).await;
        assert_refused(answer, Code::InvalidArgument, "FIELDS_INVALID");
        let amounts = consume(list, "").amounts;
        if !amounts.is_empty() {
            let answer = clients.auth.authorize(v1::AuthorizeRequest { amounts, ..Default::default() }).await;
            assert_refused(answer, Code::InvalidArgument, "FIELDS_INVALID");
        }
    }
    let unknown = clients.usage.consume(consume(&[("nonsense", 1)], "")).await;
    assert_refused(unknown, Code::InvalidArgument, "METRIC_UNKNOWN");
    let largest = clients.usage.consume(consume(&[("storms", 1 << 53)], "")).await.expect("unlimited").into_inner();
    assert_eq!(largest.usage[0].used, 1 << 53);
    let used = clients.usage.get_usage(v1::GetUsageRequest::default()).await.expect("shows").into_inner();
    assert!(
        used.usage.iter().all(|usage| ["storms", "members"].contains(&usage.metric.as_str()) || usage.used == 0),
        "{used:?}"
    );
}

async fn a_refusal_fits_into_headers_however_much_is_wrong(t: &Bed) {
    let tenant = t.tenant("much").await;
    let mut clients = t.with_token(&tenant.owner.token);
    let permissions = vec!["x".repeat(5_000); 100];
    let amounts = vec![v1::Amount { metric: "y".repeat(20_000), amount: -1 }; 20];
    let ask = v1::AuthorizeRequest { permissions, amounts, ..Default::default() };
    assert_refused(clients.auth.authorize(ask).await, Code::InvalidArgument, "FIELDS_INVALID");
    let metrics = vec!["é".repeat(9_000)];
    let usage = v1::GetUsageRequest { metrics, ..Default::default() };
    assert_refused(clients.usage.get_usage(usage).await, Code::InvalidArgument, "FIELDS_INVALID");
}

async fn a_request_id_is_a_uuid_of_version_4(t: &Bed) {
    let tenant = t.tenant("ids").await;
    let mut clients = t.with_token(&tenant.owner.token);
    let good = request_id();
    let braced = format!("{{{good}}}");
    let bad = [
        "x",
        "00000000-0000-0000-0000-000000000000",
        "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        "01890a5d-ac96-774b-bcce-b302099a8057",
        &good.replace('-', ""),
        &braced,
        &format!("{good} "),
    ];
    for id in bad {
        let request =
            v1::SuspendTenantRequest { request_id: id.to_owned(), reason: "a test".to_owned(), ..Default::default() };
        let answer = clients.tenants.suspend_tenant(request).await;
        assert_refused(answer, Code::InvalidArgument, "FIELDS_INVALID");
    }
}

async fn an_idempotency_key_stands_for_one_payload(t: &Bed) {
    let tenant = t.tenant("keys").await;
    let mut clients = t.with_token(&tenant.owner.token);
    for _ in 0..2 {
        let usage = clients.usage.consume(consume(&[("tokens", 5)], "once")).await.expect("consumes").into_inner();
        assert_eq!(usage.usage[0].used, 5);
    }
    for list in [&[("tokens", 6)][..], &[("quizzes", 5)], &[("quizzes", 1), ("tokens", 5)]] {
        let other = clients.usage.consume(consume(list, "once")).await;
        assert_refused(other, Code::InvalidArgument, "IDEMPOTENCY_KEY_REUSED");
    }
    for key in ["x".repeat(129), "é".to_owned(), "a\tb".to_owned()] {
        let bad = clients.usage.consume(consume(&[("tokens", 5)], &key)).await;
        assert_refused(bad, Code::InvalidArgument, "FIELDS_INVALID");
    }
}

async fn a_number_that_no_enum_has_is_refused(t: &Bed) {
    let tenant = t.tenant("enums").await;
    let mut clients = t.with_token(&tenant.owner.token);
    for number in [99, -1, i32::MAX] {
        let list = v1::ListMembersRequest { status: number, ..Default::default() };
        assert_refused(clients.members.list_members(list).await, Code::InvalidArgument, "FIELDS_INVALID");
        let ask = v1::AuthorizeRequest { ack_level: number, ..Default::default() };
        assert_refused(clients.auth.authorize(ask).await, Code::InvalidArgument, "FIELDS_INVALID");
        let list = v1::ListTenantsRequest { status: number, ..Default::default() };
        assert_refused(t.operator().tenants.list_tenants(list).await, Code::InvalidArgument, "FIELDS_INVALID");
    }
}

async fn page_sizes_are_bounded(t: &Bed) {
    let tenant = t.tenant("pages").await;
    let mut clients = t.with_token(&tenant.owner.token);
    for page_size in [-1, i32::MIN] {
        let list = v1::ListMembersRequest { page_size, ..Default::default() };
        assert_refused(clients.members.list_members(list).await, Code::InvalidArgument, "FIELDS_INVALID");
    }
    let list = v1::ListMembersRequest { page_size: i32::MAX, ..Default::default() };
    assert_eq!(clients.members.list_members(list).await.expect("lists").into_inner().members.len(), 1);
    let metrics = vec!["tokens".to_owned(); 11];
    let list = v1::ListMyTenantsRequest { metrics, ..Default::default() };
    assert_refused(clients.tenants.list_my_tenants(list).await, Code::InvalidArgument, "FIELDS_INVALID");
    let metrics = vec!["tokens".to_owned(); 101];
    let usage = v1::GetUsageRequest { metrics, ..Default::default() };
    assert_refused(clients.usage.get_usage(usage).await, Code::InvalidArgument, "FIELDS_INVALID");
}

fn rename(paths: &[&str], etag: &str) -> v1::UpdateTenantRequest {
    let paths = paths.iter().map(|&path| path.to_owned()).collect();
    v1::UpdateTenantRequest {
        update_mask: Some(prost_types::FieldMask { paths }),
        display_name: "New".to_owned(),
        etag: etag.to_owned(),
        ..Default::default()
    }
}

async fn a_stale_etag_is_refused(t: &Bed) {
    let tenant = t.tenant("etags").await;
    let mut clients = t.with_token(&tenant.owner.token);
    let shown = clients.tenants.get_tenant(v1::GetTenantRequest::default()).await.expect("shows").into_inner();
    let etag = shown.tenant.expect("a tenant").etag;
    clients.tenants.update_tenant(rename(&["*"], &etag)).await.expect("renames");
    for stale in [etag.as_str(), "nonsense", "\"v0\"", "\"v-1\""] {
        let answer = clients.tenants.update_tenant(rename(&["*"], stale)).await;
        assert_refused(answer, Code::Aborted, "ETAG_MISMATCH");
    }
    let request = v1::DeleteTenantRequest { etag, ..Default::default() };
    assert_refused(clients.tenants.delete_tenant(request).await, Code::Aborted, "ETAG_MISMATCH");
}

async fn only_fields_that_change_may_be_in_the_mask(t: &Bed) {
    let tenant = t.tenant("masks").await;
    let mut clients = t.with_token(&tenant.owner.token);
    for paths in [&["status"][..], &["display_name", "plan"], &["tenant"], &["request_id"], &["display_name.x"]] {
        let answer = clients.tenants.update_tenant(rename(paths, "")).await;
        assert_refused(answer, Code::InvalidArgument, "FIELDS_INVALID");
    }
}
