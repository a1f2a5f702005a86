//! What every mutation, and every look by an operator, leaves in the audit log.

use prost_types::FieldMask;
use serde_json::{Value, json};
use tenantry::rpc::v1;
use uuid::Uuid;

use crate::harness::{Bed, Clients, Headers, PASSWORD, Tenant, on_both_engines};
use crate::rows::AuditRow;

on_both_engines! {
    every_mutation_leaves_one_row
    a_service_in_a_persons_name_leaves_both
    a_look_by_an_operator_leaves_a_row
    no_row_holds_a_secret
    ;
    alone
    refusals_are_in_the_log_of_who_tried_and_not_of_what_was_tried
}

fn uuid(id: &str) -> Uuid {
    id.parse().unwrap()
}

/// The one row of a method.
async fn row(t: &Bed, tenant: &Tenant, method: &str) -> AuditRow {
    let rows = t.audit(&tenant.id).await;
    let mut rows = rows.into_iter().filter(|row| row.action.ends_with(&format!("/{method}")));
    let row = rows.next().unwrap_or_else(|| panic!("no row of {method}"));
    assert!(rows.next().is_none(), "two rows of {method}");
    assert!(!row.request_id.parse::<Uuid>().unwrap().is_nil());
    row
}

fn changes(row: &AuditRow) -> Value {
    serde_json::from_str(&row.changes).unwrap()
}

async fn every_mutation_leaves_one_row(t: &Bed) {
    let acme = t.tenant("acme").await;
    let (bob, cleo) = (t.person("bob").await, t.person("cleo").await);
    let mut owner = t.with_token(&acme.owner.token);
    let user_id = bob.id.clone();
    let update = v1::UpdateTenantRequest {
        update_mask: Some(FieldMask { paths: vec!["display_name".to_owned()] }),
        display_name: "New".to_owned(),
        ..Default::default()
    };
    owner.tenants.update_tenant(update).await.unwrap();
    let add = v1::AddMemberRequest { email: bob.email.clone(), ..Default::default() };
    owner.members.add_member(add).await.unwrap();
    let promote =
        v1::UpdateMemberRoleRequest { user_id: user_id.clone(), roles: vec!["admin".to_owned()], ..Default::default() };
    owner.members.update_member_role(promote).await.unwrap();
    let suspend = v1::SuspendMemberRequest { user_id: user_id.clone(), ..Default::default() };
    owner.members.suspend_member(suspend).await.unwrap();
    let reactivate = v1::ReactivateMemberRequest { user_id: user_id.clone(), ..Default::default() };
    owner.members.reactivate_member(reactivate).await.unwrap();
    let transfer = v1::TransferOwnershipRequest { new_owner_id: bob.id.clone(), ..Default::default() };
    owner.members.transfer_ownership(transfer).await.unwrap();
    owner.members.leave_tenant(v1::LeaveTenantRequest::default()).await.unwrap();
    let bob = t.login(&bob, &acme.id).await;
    let mut owner = t.with_token(&bob.token);
    let suspend = v1::SuspendTenantRequest { reason: "holidays".to_owned(), ..Default::default() };
    owner.tenants.suspend_tenant(suspend).await.unwrap();
    owner.tenants.activate_tenant(v1::ActivateTenantRequest::default()).await.unwrap();
    owner.tenants.delete_tenant(v1::DeleteTenantRequest::default()).await.unwrap();
    owner.tenants.undelete_tenant(v1::UndeleteTenantRequest::default()).await.unwrap();

    let by_owner: [(&str, &str, Value); 6] = [
        ("UpdateTenant", &acme.id, json!({"display_name": {"before": acme.slug, "after": "New"}})),
        (
            "AddMember",
            &bob.id,
            json!({
            "roles": {"before": null, "after": ["member"]}, "status": {"before": null, "after": "active"}}),
        ),
        ("UpdateMemberRole", &bob.id, json!({"roles": {"before": ["member"], "after": ["admin"]}})),
        ("SuspendMember", &bob.id, json!({"status": {"before": "active", "after": "suspended"}})),
        ("ReactivateMember", &bob.id, json!({"status": {"before": "suspended", "after": "active"}})),
        ("LeaveTenant", &acme.owner.id, json!({"status": {"before": "active", "after": "removed"}})),
    ];
    for (method, subject, expected) in by_owner {
        let row = row(t, &acme, method).await;
        assert_eq!((row.actor_kind, row.actor_id), (2, Some(uuid(&acme.owner.id))), "{method}");
        assert_eq!((row.subject_id, row.on_behalf_of), (Some(uuid(subject)), None), "{method}");
        assert_eq!(changes(&row), expected, "{method}");
    }
    let transfer = changes(&row(t, &acme, "TransferOwnership").await);
    assert_eq!(transfer["roles"], json!({"before": ["admin"], "after": ["owner"]}));
    assert_eq!(transfer["previous_owner_roles"], json!({"before": ["owner"], "after": ["admin"]}));
    let by_bob = [
        (
            "SuspendTenant",
            json!({"status": {"before": "active", "after": "suspended"},
                                 "suspend_reason": {"before": null, "after": "holidays"}}),
        ),
        (
            "ActivateTenant",
            json!({"status": {"before": "suspended", "after": "active"},
                                  "suspend_reason": {"before": "holidays", "after": null}}),
        ),
        ("DeleteTenant", json!({"status": {"before": "active", "after": "deleted"}})),
        ("UndeleteTenant", json!({"status": {"before": "deleted", "after": "active"}})),
    ];
    for (method, expected) in by_bob {
        let row = row(t, &acme, method).await;
        assert_eq!((row.actor_kind, row.actor_id), (2, Some(uuid(&bob.id))), "{method}");
        assert_eq!(changes(&row), expected, "{method}");
    }
    let sign_up = changes(&row(t, &acme, "SignUp").await);
    assert_eq!(sign_up["slug"]["after"], acme.slug.as_str());
    // A refused call leaves nothing of its own.
    let before = t.audit(&acme.id).await.len();
    let again =
        v1::AddMemberRequest { email: cleo.email.clone(), roles: vec!["king".to_owned()], ..Default::default() };
    owner.members.add_member(again).await.unwrap_err();
    owner.members.leave_tenant(v1::LeaveTenantRequest::default()).await.unwrap_err();
    assert_eq!(t.audit(&acme.id).await.len(), before);
}

async fn a_service_in_a_persons_name_leaves_both(t: &Bed) {
    let acme = t.tenant("acme").await;
    let bob = t.person("bob").await;
    let made = v1::CreateServiceKeyRequest {
        display_name: "front".to_owned(),
        permissions: vec!["*".to_owned()],
        ..Default::default()
    };
    let key = t.operator().auth.create_service_key(made).await.unwrap().into_inner();
    let headers = Headers::default().and("x-api-key", &key.secret).and("x-on-behalf-of", &acme.owner.token);
    let mut service = Clients::new(t.channel(), headers);
    let add = v1::AddMemberRequest { email: bob.email, ..Default::default() };
    service.members.add_member(add).await.unwrap();
    let row = row(t, &acme, "AddMember").await;
    assert_eq!((row.actor_kind, row.on_behalf_of), (3, Some(uuid(&acme.owner.id))));
    assert!(row.actor_id.is_some() && row.actor_id != Some(uuid(&acme.owner.id)));
}

async fn a_look_by_an_operator_leaves_a_row(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut operator = t.operator();
    operator.tenants.get_tenant(v1::GetTenantRequest { tenant: acme.slug.clone() }).await.unwrap();
    let list = v1::ListMembersRequest { tenant: acme.id.clone(), ..Default::default() };
    operator.members.list_members(list).await.unwrap();
    let usage = v1::GetUsageRequest { tenant: acme.id.clone(), ..Default::default() };
    operator.usage.get_usage(usage).await.unwrap();
    for method in ["GetTenant", "ListMembers", "GetUsage"] {
        let row = row(t, &acme, method).await;
        assert_eq!((row.actor_kind, row.changes.as_str()), (4, "{}"), "{method}");
    }
    // Members and services look without one.
    t.with_token(&acme.owner.token).members.list_members(v1::ListMembersRequest::default()).await.unwrap();
    row(t, &acme, "ListMembers").await;
}

async fn no_row_holds_a_secret(t: &Bed) {
    let acme = t.tenant("acme").await;
    t.login(&acme.owner, &acme.id).await;
    let key = t.service_key(&["tenant.read"]).await;
    let nil = Uuid::nil().to_string();
    let mut texts: Vec<(String,)> = t.rows("select changes from audit_event where tenant_id <> $1", &nil).await;
    let platform: Vec<(String,)> = t.rows("select changes from platform_audit where event_id <> $1", &nil).await;
    assert!(platform.iter().any(|(text,)| text.contains("session_id")), "the sign-in is there");
    texts.extend(platform);
    for secret in [PASSWORD, &key, &t.operator_key, &acme.owner.token, "argon2", "eyJ"] {
        assert!(!texts.iter().any(|(text,)| text.contains(secret)), "a secret lies in the audit log");
    }
    let secret = key.rsplit('_').nth(1).unwrap();
    assert!(!texts.iter().any(|(text,)| text.contains(secret)));
}

/// One row for all that are alike within a minute, written at the latest when the server stops.
async fn refusals_are_in_the_log_of_who_tried_and_not_of_what_was_tried(t: Bed) {
    let (acme, globex) = (t.tenant("acme").await, t.tenant("globex").await);
    let viewer = t.member(&acme, "viewer").await;
    for _ in 0..3 {
        let suspend = v1::SuspendTenantRequest { reason: "spite".to_owned(), ..Default::default() };
        t.with_token(&viewer.token).tenants.suspend_tenant(suspend).await.expect_err("may not");
    }
    let nosy =
        Headers::default().and("authorization", &format!("Bearer {}", viewer.token)).and("x-tenant-id", &globex.id);
    let mut nosy = Clients::new(t.channel(), nosy);
    nosy.tenants.get_tenant(v1::GetTenantRequest::default()).await.expect_err("may not");

    let t = t.restart().await;
    let sql =
        "select action, changes from audit_event where tenant_id = $1 and changes like '%\"denied\"%' order by action";
    let rows: Vec<(String, String)> = t.rows(sql, &acme.id).await;
    let told: Vec<(String, Value)> =
        rows.into_iter().map(|(action, changes)| (action, serde_json::from_str(&changes).unwrap())).collect();
    let of = |method: &str| -> Vec<&Value> {
        told.iter().filter(|(action, _)| action.ends_with(method)).map(|(_, changes)| changes).collect()
    };
    assert_eq!(of("/GetTenant").len(), 1);
    assert_eq!(of("/GetTenant")[0]["claimed_tenant"]["after"], json!(globex.id));
    let suspensions = of("/SuspendTenant");
    let count: i64 = suspensions.iter().map(|changes| changes["count"]["after"].as_i64().unwrap()).sum();
    assert!(count == 3 && suspensions.len() <= 2, "one row a minute: {suspensions:?}");
    assert_eq!(suspensions[0]["denied"]["after"], json!("permission"));
    let tried: Vec<(String, String)> = t.rows(sql, &globex.id).await;
    assert!(tried.is_empty(), "{tried:?}");
}
