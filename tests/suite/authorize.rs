//! Authorize: one decision on person, tenant, permission and quota, with every reason that speaks against it.

use chrono::TimeDelta;
use tenantry::rpc::v1;
use tenantry::rpc::v1::Remedy::{Operator, TenantAdmin, UpgradeOrWait};
use tonic::Code;

use crate::harness::{
    Bed, Clients, Person, Tenant, amounts, assert_refused, on_both_engines, request_id, wrong_fields,
};

on_both_engines! {
    a_yes_tells_who_where_and_as_what
    amounts_are_consumed_only_with_a_yes
    a_check_consumes_nothing
    every_reason_is_told_with_its_remedy
    a_suspended_member_learns_that_and_nothing_of_the_tenant
    a_bad_token_is_a_no_that_tells_nothing
    a_stranger_learns_nothing_of_the_tenant
    the_tenant_is_the_tokens_unless_it_names_none
    a_person_asks_for_themselves
    consuming_needs_the_right_to
    a_key_makes_a_repetition_harmless
    a_question_that_does_not_read_is_refused
    ;
    alone
    an_expired_token_asks_for_a_sign_in
}

pub(crate) fn question(person: &Person, permissions: &[&str], list: &[(&str, i64)]) -> v1::AuthorizeRequest {
    v1::AuthorizeRequest {
        subject_token: person.token.clone(),
        permissions: permissions.iter().map(|&p| p.to_owned()).collect(),
        amounts: amounts(list),
        ..Default::default()
    }
}

async fn decide(clients: &mut Clients, question: v1::AuthorizeRequest) -> v1::AuthorizeResponse {
    let decision = clients.auth.authorize(question).await.expect("a decision").into_inner();
    assert_eq!(decision.allowed, decision.reasons.is_empty());
    // On what it was decided differs from call to call.
    v1::AuthorizeResponse { revision: String::new(), staleness: None, max_staleness: None, ..decision }
}

fn reasons(decision: &v1::AuthorizeResponse) -> Vec<(&str, &str, v1::Remedy)> {
    decision.reasons.iter().map(|r| (r.reason.as_str(), r.subject.as_str(), r.remedy())).collect()
}

pub(crate) async fn service(t: &Bed) -> Clients {
    t.with_key(&t.service_key(&["usage.write"]).await)
}

async fn used(t: &Bed, tenant: &Tenant) -> i64 {
    let asked = v1::GetUsageRequest { tenant: tenant.id.clone(), metrics: vec!["quizzes".to_owned()] };
    t.operator().usage.get_usage(asked).await.unwrap().into_inner().usage[0].used
}

async fn a_yes_tells_who_where_and_as_what(t: &Bed) {
    let acme = t.tenant("acme").await;
    let bob = t.member(&acme, "manager").await;
    let asked = question(&bob, &["members.invite", "tenant.read"], &[]);
    let yes = decide(&mut service(t).await, asked).await;
    assert!(yes.allowed);
    assert_eq!(yes.user.unwrap().user_id, bob.id);
    assert_eq!((yes.tenant.unwrap().tenant_id, yes.roles.join(" ").as_str()), (acme.id, "manager"));
    assert!(yes.usage.is_empty());
}

async fn amounts_are_consumed_only_with_a_yes(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut service = service(t).await;
    let yes = decide(&mut service, question(&acme.owner, &[], &[("quizzes", 60), ("tokens", 5)])).await;
    let usage: Vec<_> = yes.usage.iter().map(|u| (u.metric.as_str(), u.used, u.remaining)).collect();
    assert_eq!(usage, [("quizzes", 60, Some(40)), ("tokens", 5, Some(995))]);
    let denied = decide(&mut service, question(&acme.owner, &["quizzes.mark"], &[("quizzes", 1)])).await;
    assert_eq!(reasons(&denied), [("PERMISSION_MISSING", "quizzes.mark", v1::Remedy::TenantAdmin)]);
    assert_eq!(denied.usage[0].used, 60);
    let short = decide(&mut service, question(&acme.owner, &[], &[("tokens", 1), ("quizzes", 41)])).await;
    assert_eq!(reasons(&short), [("QUOTA_EXCEEDED", "quizzes", v1::Remedy::UpgradeOrWait)]);
    assert_eq!(short.usage.iter().map(|u| u.used).collect::<Vec<_>>(), [60, 5]);
    assert_eq!(used(t, &acme).await, 60);
}

async fn a_check_consumes_nothing(t: &Bed) {
    let acme = t.tenant("acme").await;
    // Whoever only looks needs no right to consume.
    let mut service = t.with_key(&t.service_key(&["tenant.read"]).await);
    let check = |amount| v1::AuthorizeRequest {
        ack_level: v1::AckLevel::CheckOnly.into(),
        ..question(&acme.owner, &[], &[("quizzes", amount)])
    };
    let yes = decide(&mut service, check(100)).await;
    assert_eq!((yes.allowed, yes.usage[0].used), (true, 0));
    let no = decide(&mut service, check(101)).await;
    assert_eq!(reasons(&no), [("QUOTA_EXCEEDED", "quizzes", v1::Remedy::UpgradeOrWait)]);
    assert_eq!(used(t, &acme).await, 0);
}

async fn every_reason_is_told_with_its_remedy(t: &Bed) {
    let acme = t.tenant("acme").await;
    let bob = t.member(&acme, "viewer").await;
    let mut operator = t.operator();
    let asked = question(&bob, &["members.manage", "tenant.read", "a.b"], &[("tokens", 1001), ("quizzes", 101)]);
    let close = v1::SuspendTenantRequest { tenant: acme.id.clone(), reason: "unpaid".to_owned(), ..Default::default() };
    operator.tenants.suspend_tenant(close).await.unwrap();
    let no = decide(&mut service(t).await, asked.clone()).await;
    let missing = [("PERMISSION_MISSING", "members.manage", TenantAdmin), ("PERMISSION_MISSING", "a.b", TenantAdmin)];
    let short = [("QUOTA_EXCEEDED", "quizzes", UpgradeOrWait), ("QUOTA_EXCEEDED", "tokens", UpgradeOrWait)];
    assert_eq!(reasons(&no), [&[("TENANT_SUSPENDED", "", Operator)], &missing[..], &short].concat());
    assert!(no.reasons.iter().all(|reason| !reason.message.is_empty()));
    assert!(no.reasons[0].message.contains("unpaid"));

    let delete = v1::DeleteTenantRequest { tenant: acme.id.clone(), ..Default::default() };
    operator.tenants.delete_tenant(delete).await.unwrap();
    let no = decide(&mut service(t).await, asked).await;
    assert_eq!(reasons(&no)[0], ("TENANT_DELETED", "", TenantAdmin));
}

async fn a_suspended_member_learns_that_and_nothing_of_the_tenant(t: &Bed) {
    let acme = t.tenant("acme").await;
    let bob = t.member(&acme, "viewer").await;
    let suspend = v1::SuspendMemberRequest { tenant: acme.id.clone(), user_id: bob.id.clone(), ..Default::default() };
    t.operator().members.suspend_member(suspend).await.unwrap();
    let no = decide(&mut service(t).await, question(&bob, &["a.b"], &[("quizzes", 101)])).await;
    let told = [("MEMBER_SUSPENDED", "", TenantAdmin), ("PERMISSION_MISSING", "a.b", TenantAdmin)];
    assert_eq!(reasons(&no), told);
    assert_eq!((no.tenant, no.roles.join(" ").as_str(), no.usage.len()), (None, "", 0));
}

async fn a_bad_token_is_a_no_that_tells_nothing(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut service = service(t).await;
    let mut broken = acme.owner.token.clone();
    let last = if broken.ends_with('A') { "B" } else { "A" };
    broken.replace_range(
        broken.len() - 20..broken.len() - 19,
        if &broken[broken.len() - 20..broken.len() - 19] == last { "C" } else { last },
    );
    for token in [broken, "eyJ".to_owned(), "garbage".to_owned(), t.operator_key.clone()] {
        let asked = v1::AuthorizeRequest {
            tenant: acme.id.clone(),
            subject_token: token,
            ..question(&acme.owner, &["a.b"], &[("quizzes", 101)])
        };
        let no = decide(&mut service, asked).await;
        assert_eq!(reasons(&no), [("CREDENTIAL_INVALID", "", v1::Remedy::SignIn)]);
        assert!(no.user.is_none() && no.tenant.is_none() && no.usage.is_empty());
    }
}

async fn a_stranger_learns_nothing_of_the_tenant(t: &Bed) {
    let (acme, stranger) = (t.tenant("acme").await, t.person("stranger").await);
    let mut service = service(t).await;
    let mut answers = Vec::new();
    for tenant in [acme.id.clone(), acme.slug.clone(), request_id(), "no-such-tenant".to_owned()] {
        let asked = v1::AuthorizeRequest { tenant, ..question(&stranger, &["tenant.read"], &[("quizzes", 101)]) };
        answers.push(decide(&mut service, asked).await);
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert_eq!(reasons(&answers[0])[0].0, "TENANT_NOT_FOUND");
    assert!(answers[0].tenant.is_none() && answers[0].roles.is_empty() && answers[0].usage.is_empty());
    assert_eq!(answers[0].user.as_ref().unwrap().user_id, stranger.id);
}

async fn the_tenant_is_the_tokens_unless_it_names_none(t: &Bed) {
    let (acme, globex) = (t.tenant("acme").await, t.tenant("globex").await);
    t.join(&globex, &acme.owner, "viewer").await;
    let mut service = service(t).await;
    let ask = |person: &Person, tenant: &str| v1::AuthorizeRequest {
        tenant: tenant.to_owned(),
        ..question(person, &["tenant.read"], &[])
    };
    for name in ["", &acme.id, &acme.slug] {
        let yes = decide(&mut service, ask(&acme.owner, name)).await;
        assert_eq!(yes.tenant.unwrap().tenant_id, acme.id);
    }
    // Another one than the token's is a conflict, whoever it belongs to.
    for other in [globex.id.clone(), globex.slug.clone(), request_id(), "no-such-tenant".to_owned()] {
        let conflict = service.auth.authorize(ask(&acme.owner, &other)).await;
        assert_refused(conflict, Code::InvalidArgument, "TENANT_CONFLICT");
    }
    // A token that names none leaves it to the service.
    let bob = t.person("bob").await;
    let none = decide(&mut service, ask(&bob, "")).await;
    assert_eq!(reasons(&none)[0].0, "TENANT_MISSING");
    t.join(&globex, &bob, "viewer").await;
    let yes = decide(&mut service, ask(&bob, &globex.slug)).await;
    assert_eq!((yes.tenant.unwrap().tenant_id, yes.roles.join(" ").as_str()), (globex.id.clone(), "viewer"));
    let yes = decide(&mut service, ask(&bob, "")).await;
    assert_eq!(yes.tenant.unwrap().tenant_id, globex.id, "the only one");
}

async fn a_person_asks_for_themselves(t: &Bed) {
    let acme = t.tenant("acme").await;
    let viewer = t.member(&acme, "viewer").await;
    let mut clients = t.with_token(&viewer.token);
    let own = |permissions: &[&str], list: &[(&str, i64)]| v1::AuthorizeRequest {
        subject_token: String::new(),
        ..question(&viewer, permissions, list)
    };
    let yes = decide(&mut clients, own(&["tenant.read"], &[])).await;
    assert_eq!((yes.allowed, yes.roles.join(" ").as_str()), (true, "viewer"));
    let no = decide(&mut clients, own(&["members.manage"], &[])).await;
    assert_eq!(reasons(&no)[0].1, "members.manage");
    let named = clients.auth.authorize(question(&viewer, &[], &[])).await;
    assert_eq!(wrong_fields(named), ["subject_token"]);
    // Consuming takes the right to.
    let no = decide(&mut clients, own(&[], &[("quizzes", 1)])).await;
    assert_eq!(reasons(&no), [("PERMISSION_MISSING", "usage.write", v1::Remedy::TenantAdmin)]);
    let yes = decide(&mut t.with_token(&acme.owner.token), own(&["tenant.read"], &[("quizzes", 1)])).await;
    assert_eq!((yes.allowed, used(t, &acme).await), (true, 1));
}

async fn consuming_needs_the_right_to(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut reader = t.with_key(&t.service_key(&["usage.read"]).await);
    let refused = reader.auth.authorize(question(&acme.owner, &[], &[("quizzes", 1)])).await;
    assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING");
    decide(&mut reader, question(&acme.owner, &["tenant.read"], &[])).await;
    let operator = t.operator().auth.authorize(question(&acme.owner, &[], &[])).await;
    assert_refused(operator, Code::PermissionDenied, "CALLER_KIND_REFUSED");
    // The service's right counts, not the person's: a viewer's service consumes for them.
    let viewer = t.member(&acme, "viewer").await;
    let yes = decide(&mut service(t).await, question(&viewer, &["tenant.read"], &[("quizzes", 1)])).await;
    assert!(yes.allowed);
    assert_eq!(used(t, &acme).await, 1);
}

async fn a_key_makes_a_repetition_harmless(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut service = service(t).await;
    let with = |key: &str, amount| v1::AuthorizeRequest {
        idempotency_key: key.to_owned(),
        ..question(&acme.owner, &[], &[("quizzes", amount)])
    };
    let first = decide(&mut service, with("one", 60)).await;
    assert_eq!(decide(&mut service, with("one", 60)).await, first);
    let short = decide(&mut service, with("two", 60)).await;
    assert_eq!(reasons(&short), [("QUOTA_EXCEEDED", "quizzes", v1::Remedy::UpgradeOrWait)]);
    t.execute("update tenant set plan = 'pro' where tenant_id = $1", &acme.id).await;
    assert!(!decide(&mut service, with("two", 60)).await.allowed, "a refusal stays one");
    let reused = service.auth.authorize(with("one", 61)).await;
    assert_refused(reused, Code::InvalidArgument, "IDEMPOTENCY_KEY_REUSED");
    // A no for another reason used the key for nothing.
    let no = v1::AuthorizeRequest { permissions: vec!["a.b".to_owned()], ..with("three", 1) };
    assert!(!decide(&mut service, no).await.allowed);
    assert!(decide(&mut service, with("three", 2)).await.allowed);
    assert_eq!(used(t, &acme).await, 62);
}

async fn a_question_that_does_not_read_is_refused(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut service = service(t).await;
    let none = v1::AuthorizeRequest { subject_token: String::new(), ..question(&acme.owner, &[], &[]) };
    assert_eq!(wrong_fields(service.auth.authorize(none).await), ["subject_token"]);
    let bad = v1::AuthorizeRequest {
        tenant: "No Tenant".to_owned(),
        ack_level: 9,
        idempotency_key: "ä".to_owned(),
        ..question(&acme.owner, &["quizzes.*", "x"], &[("quizzes", 0)])
    };
    let wrong = wrong_fields(service.auth.authorize(bad).await);
    let all = ["tenant", "permissions[0]", "permissions[1]", "amounts[0].amount", "idempotency_key", "ack_level"];
    assert_eq!(wrong, all);
    let unknown = service.auth.authorize(question(&acme.owner, &[], &[("unicorns", 1)])).await;
    assert_refused(unknown, Code::InvalidArgument, "METRIC_UNKNOWN");
}

async fn an_expired_token_asks_for_a_sign_in(t: Bed) {
    let acme = t.tenant("acme").await;
    let mut service = service(&t).await;
    t.clock.advance(TimeDelta::minutes(6));
    let no = decide(&mut service, question(&acme.owner, &["tenant.read"], &[("quizzes", 1)])).await;
    assert_eq!(reasons(&no), [("TOKEN_EXPIRED", "", v1::Remedy::SignIn)]);
    assert!(no.user.is_none() && no.tenant.is_none());
    assert_eq!(used(&t, &acme).await, 0);
}
