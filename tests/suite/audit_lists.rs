//! Reading the audit logs: by whom, in which order, and page after page.

use prost_types::Timestamp;
use tenantry::rpc::v1;
use tonic::Code;

use crate::harness::{Bed, Tenant, assert_refused, on_both_engines, wrong_fields};

on_both_engines! {
    an_admin_reads_the_tenants_log_newest_first_page_by_page
    a_log_is_filtered_by_who_what_on_what_and_when
    operators_read_every_tenants_log_and_the_platforms
    ;
    alone
    an_export_goes_on_where_the_last_one_ended
}

/// A tenant in which something has happened: two members were added, and one removed by an admin.
async fn lively(t: &Bed) -> (Tenant, v1::Member) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    let people = [t.person("ann").await, t.person("bob").await];
    let mut last = None;
    for person in &people {
        let add = v1::AddMemberRequest {
            email: person.email.clone(),
            roles: vec!["viewer".to_owned()],
            ..Default::default()
        };
        last = owner.members.add_member(add).await.unwrap().into_inner().member;
    }
    let remove = v1::RemoveMemberRequest { user_id: people[1].id.clone(), ..Default::default() };
    owner.members.remove_member(remove).await.unwrap();
    (acme, last.unwrap())
}

async fn list(t: &Bed, acme: &Tenant, filter: v1::AuditFilter) -> Vec<v1::AuditEvent> {
    let request = v1::ListAuditEventsRequest { filter: Some(filter), page_size: 1000, ..Default::default() };
    t.with_token(&acme.owner.token).tenants.list_audit_events(request).await.unwrap().into_inner().events
}

async fn an_admin_reads_the_tenants_log_newest_first_page_by_page(t: &Bed) {
    let (acme, _) = lively(t).await;
    let all = list(t, &acme, v1::AuditFilter::default()).await;
    let actions: Vec<&str> = all.iter().map(|event| event.action.as_str()).collect();
    assert_eq!(actions[..2], ["MembershipService/RemoveMember", "MembershipService/AddMember"]);
    assert!(all.windows(2).all(|pair| pair[0].event_id > pair[1].event_id));
    let rows = t.audit(&acme.id).await;
    assert_eq!(all.len(), rows.len());
    assert_eq!(all[0].changes, rows.last().unwrap().changes);
    assert_eq!((all[0].actor_kind(), all[0].actor_id.as_str()), (v1::CallerKind::User, acme.owner.id.as_str()));

    let mut admin = t.with_token(&t.member(&acme, "admin").await.token);
    let mut paged = Vec::new();
    let mut request = v1::ListAuditEventsRequest { page_size: 2, ..Default::default() };
    loop {
        let page = admin.tenants.list_audit_events(request.clone()).await.unwrap().into_inner();
        assert!(page.events.len() <= 2);
        paged.extend(page.events);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    // The admin was added meanwhile.
    assert_eq!(paged[1..], all);
    let other = v1::AuditFilter { action: "TenantService/".to_owned(), ..Default::default() };
    request.filter = Some(other);
    assert_refused(admin.tenants.list_audit_events(request).await, Code::InvalidArgument, "PAGE_TOKEN_MISMATCH");
}

async fn a_log_is_filtered_by_who_what_on_what_and_when(t: &Bed) {
    let (acme, bob) = lively(t).await;
    let viewer = t.member(&acme, "viewer").await;
    let all = list(t, &acme, v1::AuditFilter::default()).await;
    let count = async |filter: v1::AuditFilter| list(t, &acme, filter).await.len();
    let of_all = |like: &dyn Fn(&v1::AuditEvent) -> bool| all.iter().filter(|event| like(event)).count();
    let none = v1::AuditFilter::default;
    let owner = acme.owner.id.clone();
    let by_owner = of_all(&|event| event.actor_id == owner);
    assert!(by_owner >= 3 && by_owner < all.len());
    assert_eq!(count(v1::AuditFilter { actor_id: owner, ..none() }).await, by_owner);
    let adds = "MembershipService/AddMember".to_owned();
    assert_eq!(count(v1::AuditFilter { action: adds, ..none() }).await, 3);
    assert_eq!(count(v1::AuditFilter { action: "MembershipService/".to_owned(), ..none() }).await, 4);
    assert_eq!(count(v1::AuditFilter { action: "MembershipService/Add".to_owned(), ..none() }).await, 0);
    let subject = all[1].subject_id.clone();
    let on_subject = of_all(&|event| event.subject_id == subject);
    assert_eq!(count(v1::AuditFilter { subject_id: subject, ..none() }).await, on_subject);
    assert!(on_subject >= 1 && !bob.membership_id.is_empty());
    let third: Timestamp = all[2].time.unwrap();
    let since =
        of_all(&|event| (event.time.unwrap().seconds, event.time.unwrap().nanos) >= (third.seconds, third.nanos));
    assert_eq!(count(v1::AuditFilter { start_time: Some(third), ..none() }).await, since);
    assert_eq!(count(v1::AuditFilter { end_time: Some(third), ..none() }).await, all.len() - since);

    let mut clients = t.with_token(&acme.owner.token);
    let wrong = v1::AuditFilter { actor_id: "ada".to_owned(), action: "a b".to_owned(), ..none() };
    let wrong = v1::ListAuditEventsRequest { filter: Some(wrong), ..Default::default() };
    let fields = wrong_fields(clients.tenants.list_audit_events(wrong).await);
    assert_eq!(fields, ["filter.actor_id", "filter.action"]);
    let refused = t.with_token(&viewer.token).tenants.list_audit_events(v1::ListAuditEventsRequest::default()).await;
    assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING");
}

async fn operators_read_every_tenants_log_and_the_platforms(t: &Bed) {
    let (acme, _) = lively(t).await;
    let mut operator = t.operator();
    let request = v1::ListAuditEventsRequest { tenant: acme.id.clone(), ..Default::default() };
    let events = operator.tenants.list_audit_events(request).await.unwrap().into_inner().events;
    assert_eq!(events[0].action, "TenantService/ListAuditEvents", "a look by an operator is in the log as well");
    assert!(events.iter().any(|event| event.action == "MembershipService/RemoveMember"));

    t.service_key(&["usage.read"]).await;
    let filter = v1::AuditFilter { action: "AuthService/CreateServiceKey".to_owned(), ..Default::default() };
    let request = v1::ListPlatformAuditEventsRequest { filter: Some(filter), page_size: 1, ..Default::default() };
    let page = operator.tenants.list_platform_audit_events(request).await.unwrap().into_inner();
    assert_eq!(page.events.len(), 1);
    assert_eq!(page.events[0].actor_kind(), v1::CallerKind::Operator);
    let request = v1::ListPlatformAuditEventsRequest::default();
    let refused = t.with_token(&acme.owner.token).tenants.list_platform_audit_events(request).await;
    assert_refused(refused, Code::PermissionDenied, "CALLER_KIND_REFUSED");
}

async fn an_export_goes_on_where_the_last_one_ended(t: Bed) {
    let (acme, _) = lively(&t).await;
    let export = async |cursor: &str| {
        let request = v1::ExportAuditEventsRequest {
            tenant: acme.id.clone(),
            cursor: cursor.to_owned(),
            filter: Some(v1::AuditFilter { action: "MembershipService/".to_owned(), ..Default::default() }),
        };
        let mut stream = t.operator().tenants.export_audit_events(request).await.unwrap().into_inner();
        let (mut events, mut cursor) = (Vec::new(), cursor.to_owned());
        while let Some(message) = stream.message().await.unwrap() {
            events.extend(message.events);
            cursor = message.cursor;
        }
        (events, cursor)
    };
    // Calls of the last minute may still be on their way into the log.
    assert_eq!(export("").await, (Vec::new(), String::new()));
    t.clock.advance(chrono::TimeDelta::minutes(2));
    let (first, cursor) = export("").await;
    let actions: Vec<&str> = first.iter().map(|event| event.action.as_str()).collect();
    let (added, removed) = ("MembershipService/AddMember", "MembershipService/RemoveMember");
    assert_eq!(actions, [added, added, removed], "the oldest first");
    assert_eq!(export(&cursor).await, (Vec::new(), cursor.clone()));
    let person = t.person("eve").await;
    t.join(&acme, &person, "viewer").await;
    t.clock.advance(chrono::TimeDelta::minutes(2));
    let (second, end) = export(&cursor).await;
    assert_eq!(second.iter().map(|event| event.action.as_str()).collect::<Vec<_>>(), [added]);
    assert!(end > cursor);
    let wrong = v1::ExportAuditEventsRequest { tenant: acme.id.clone(), cursor: "x".to_owned(), ..Default::default() };
    assert_eq!(wrong_fields(t.operator().tenants.export_audit_events(wrong).await), ["cursor"]);
}
