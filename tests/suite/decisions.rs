//! Decisions in more ways than one call each: many at once, on a stream, as a list of what somebody may do; on features, on
//! people whom a service names, with what they come from, and as of a revision.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures::StreamExt as _;
use tenantry::rpc::v1;
use tenantry::rpc::v1::authorize_result::Result as Of;
use tenantry::rpc::v1::set_feature_request::Value as Switch;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Response, Streaming};

use crate::authorize::{question, service};
use crate::harness::{Bed, Clients, Engine, Person, Tenant, assert_refused, on_both_engines, request_id, wrong_fields};

on_both_engines! {
    many_questions_have_an_answer_each_in_their_order
    a_batch_that_does_not_read_is_refused
    a_stream_answers_each_question_by_its_id
    a_stream_ends_for_whoever_loses_their_key
    a_stream_that_is_not_read_holds_nobody_up
    what_somebody_may_do_is_told_at_once
    a_person_is_named_by_a_service_and_by_nobody_else
    a_yes_says_what_permissions_come_from
    every_answer_says_on_what_it_was_decided
    a_revision_of_another_history_is_lost
    ;
    alone
    a_feature_that_is_missing_is_told_with_its_remedy
    a_revision_that_was_lost_is_told_from_one_that_was_compacted_away
    whoever_asks_for_themselves_is_looked_at_as_of_the_revision_too
    what_was_written_at_one_server_is_decided_on_at_the_other_when_asked
    a_repetition_tells_a_revision_that_is_not_older_than_the_first_call
}

/// What came of a question: whether it was allowed, or what is wrong with it, with the reasons.
fn outcome(result: &v1::AuthorizeResult) -> (Option<bool>, Vec<&str>) {
    match result.result.as_ref().expect("a result") {
        Of::Decision(decision) => {
            (Some(decision.allowed), decision.reasons.iter().map(|reason| reason.reason.as_str()).collect())
        }
        Of::Error(error) => (None, vec![error.reason.as_str()]),
    }
}

async fn many_questions_have_an_answer_each_in_their_order(t: &Bed) {
    let acme = t.tenant("acme").await;
    let viewer = t.member(&acme, "viewer").await;
    let questions = vec![
        question(&acme.owner, &["members.invite"], &[("quizzes", 60)]),
        question(&viewer, &["members.invite"], &[]),
        question(&acme.owner, &["not a permission"], &[]),
        question(&acme.owner, &[], &[("quizzes", 60)]),
        question(&acme.owner, &[], &[("nothing", 1)]),
        question(&viewer, &["tenant.read"], &[]),
    ];
    let batch = v1::BatchAuthorizeRequest { questions, ..Default::default() };
    let results = service(t).await.auth.batch_authorize(batch).await.unwrap().into_inner().results;
    let outcomes: Vec<_> = results.iter().map(outcome).collect();
    // Two of the owner's want 60 of 100, and either may be first.
    let (first, fourth) = (outcomes[0].clone(), outcomes[3].clone());
    let yes = (Some(true), vec![]);
    let no = |reason| (Some(false), vec![reason]);
    assert!([(yes.clone(), no("QUOTA_EXCEEDED")), (no("QUOTA_EXCEEDED"), yes.clone())].contains(&(first, fourth)));
    assert_eq!(outcomes[1], no("PERMISSION_MISSING"));
    assert_eq!(outcomes[2], (None, vec!["FIELDS_INVALID"]));
    assert_eq!(outcomes[4], (None, vec!["METRIC_UNKNOWN"]));
    assert_eq!(outcomes[5], yes);
    let asked = v1::GetUsageRequest { tenant: acme.id.clone(), metrics: vec!["quizzes".to_owned()] };
    assert_eq!(t.operator().usage.get_usage(asked).await.unwrap().into_inner().usage[0].used, 60);
}

async fn a_batch_that_does_not_read_is_refused(t: &Bed) {
    let mut service = service(t).await;
    let none = service.auth.batch_authorize(v1::BatchAuthorizeRequest::default()).await;
    assert_eq!(wrong_fields(none), ["questions"]);
    let many = vec![v1::AuthorizeRequest::default(); 1001];
    let many = v1::BatchAuthorizeRequest { questions: many, ..Default::default() };
    assert_eq!(wrong_fields(service.auth.batch_authorize(many).await), ["questions"]);
    let one = vec![v1::AuthorizeRequest::default()];
    let names = vec!["tenant.read".to_owned(); 100];
    let large = v1::AuthorizeRequest { permissions: names, ..Default::default() };
    let large = v1::BatchAuthorizeRequest { questions: vec![large; 101], ..Default::default() };
    assert_eq!(wrong_fields(service.auth.batch_authorize(large).await), ["questions"]);
    let explained = vec![v1::AuthorizeRequest { explain: true, ..Default::default() }];
    let explained = v1::BatchAuthorizeRequest { questions: explained, ..Default::default() };
    assert_eq!(wrong_fields(service.auth.batch_authorize(explained).await), ["questions[0].explain"]);
    let odd = v1::BatchAuthorizeRequest { questions: one, at_least_revision: "yesterday".to_owned() };
    assert_eq!(wrong_fields(service.auth.batch_authorize(odd).await), ["at_least_revision"]);
}

async fn a_stream_answers_each_question_by_its_id(t: &Bed) {
    let acme = t.tenant("acme").await;
    let viewer = t.member(&acme, "viewer").await;
    let asked = |n: usize| {
        let question = match n % 3 {
            0 => question(&acme.owner, &["members.invite"], &[]),
            1 => question(&viewer, &["members.invite"], &[]),
            _ => question(&acme.owner, &[], &[("tokens", 1)]),
        };
        v1::AuthorizeStreamRequest { correlation_id: n.to_string(), question: Some(question) }
    };
    let questions: Vec<_> = (0..300).map(asked).collect();
    let answers = service(t).await.auth.authorize_stream(futures::stream::iter(questions)).await.unwrap();
    let answers: Vec<_> = answers.into_inner().map(|answer| answer.unwrap()).collect().await;
    let mut ids: Vec<usize> = answers.iter().map(|answer| answer.correlation_id.parse().unwrap()).collect();
    for (answer, id) in answers.iter().zip(&ids) {
        let (allowed, reasons) = outcome(answer.result.as_ref().unwrap());
        let wanted = if id % 3 == 1 { (Some(false), vec!["PERMISSION_MISSING"]) } else { (Some(true), vec![]) };
        assert_eq!((allowed, reasons), wanted, "{id}");
    }
    ids.sort_unstable();
    assert_eq!(ids, (0..300).collect::<Vec<_>>());
    let used = v1::GetUsageRequest { tenant: acme.id.clone(), metrics: vec!["tokens".to_owned()] };
    assert_eq!(t.operator().usage.get_usage(used).await.unwrap().into_inner().usage[0].used, 100);
}

/// Asks one question of a stream.
async fn next(
    ask: &mpsc::Sender<v1::AuthorizeStreamRequest>,
    answers: &mut Streaming<v1::AuthorizeStreamResponse>,
    correlation_id: &str,
    question: Option<v1::AuthorizeRequest>,
) -> v1::AuthorizeResult {
    let request = v1::AuthorizeStreamRequest { correlation_id: correlation_id.to_owned(), question };
    ask.send(request).await.unwrap();
    let answer = answers.next().await.unwrap().unwrap();
    assert_eq!(answer.correlation_id, correlation_id);
    answer.result.unwrap()
}

async fn a_stream_ends_for_whoever_loses_their_key(t: &Bed) {
    let acme = t.tenant("acme").await;
    let key = t.service_key(&["usage.write"]).await;
    let (ask, asked) = mpsc::channel(1);
    let answers = t.with_key(&key).auth.authorize_stream(ReceiverStream::new(asked)).await.unwrap();
    let mut answers = answers.into_inner();
    let asked = question(&acme.owner, &[], &[]);
    assert_eq!(outcome(&next(&ask, &mut answers, "a", Some(asked.clone())).await), (Some(true), vec![]));
    assert_eq!(outcome(&next(&ask, &mut answers, "b", None).await), (None, vec!["FIELDS_INVALID"]));
    assert_eq!(
        outcome(&next(&ask, &mut answers, &"x".repeat(129), Some(asked.clone())).await),
        (None, vec!["FIELDS_INVALID"])
    );
    let key_id = key.split('_').nth(1).unwrap().to_owned();
    let revoke = v1::RevokePlatformKeyRequest { key_id, ..Default::default() };
    t.operator().auth.revoke_platform_key(revoke).await.unwrap();
    ask.send(v1::AuthorizeStreamRequest { correlation_id: "c".to_owned(), question: Some(asked) }).await.unwrap();
    let ended = answers.next().await.unwrap().map(Response::new);
    assert_refused(ended, Code::Unauthenticated, "CREDENTIAL_INVALID");
    assert!(answers.next().await.is_none(), "it has ended");
}

async fn what_somebody_may_do_is_told_at_once(t: &Bed) {
    let acme = t.tenant("acme").await;
    let viewer = t.member(&acme, "viewer").await;
    let names = |all: &[&str]| all.iter().map(|&name| name.to_owned()).collect::<Vec<String>>();
    let asked = v1::TestPermissionsRequest {
        subject_token: viewer.token.clone(),
        permissions: names(&["members.invite", "tenant.read", "usage.read", "tenant.delete"]),
        features: names(&["there is none"]),
        ..Default::default()
    };
    let mut service = service(t).await;
    let told = service.auth.test_permissions(asked.clone()).await.unwrap().into_inner();
    assert!(told.permissions.contains(&"tenant.read".to_owned()), "{told:?}");
    assert!(!told.permissions.iter().any(|one| one == "members.invite" || one == "tenant.delete"), "{told:?}");
    assert_eq!((told.features.len(), told.reasons.len()), (0, 0));
    // For themselves the same.
    let own = v1::TestPermissionsRequest { subject_token: String::new(), ..asked.clone() };
    let own = t.with_token(&viewer.token).auth.test_permissions(own).await.unwrap().into_inner();
    assert_eq!(own.permissions, told.permissions);
    let suspend =
        v1::SuspendMemberRequest { tenant: acme.id.clone(), user_id: viewer.id.clone(), ..Default::default() };
    t.operator().members.suspend_member(suspend).await.unwrap();
    let none = service.auth.test_permissions(asked).await.unwrap().into_inner();
    assert_eq!(none.permissions, Vec::<String>::new());
    assert_eq!(none.reasons[0].reason, "MEMBER_SUSPENDED");
}

async fn a_person_is_named_by_a_service_and_by_nobody_else(t: &Bed) {
    let acme = t.tenant("acme").await;
    let viewer = t.member(&acme, "viewer").await;
    let stranger = t.person("stranger").await;
    let mut service = service(t).await;
    let named = |id: &str, permissions: &[&str]| v1::AuthorizeRequest {
        tenant: acme.id.clone(),
        subject_user_id: id.to_owned(),
        subject_token: String::new(),
        ..question(&viewer, permissions, &[("quizzes", 1)])
    };
    let yes = service.auth.authorize(named(&viewer.id, &["tenant.read"])).await.unwrap().into_inner();
    assert!(yes.allowed, "{yes:?}");
    assert_eq!((yes.user.unwrap().user_id, yes.usage[0].used), (viewer.id.clone(), 1));
    let mut reason = async |asked| {
        let no = service.auth.authorize(asked).await.unwrap().into_inner();
        assert!(!no.allowed);
        assert_eq!(no.user.is_some(), no.tenant.is_some(), "of a stranger nothing is told");
        no.reasons.into_iter().map(|reason| reason.reason).collect::<Vec<_>>()
    };
    assert_eq!(reason(named(&viewer.id, &["members.invite"])).await, ["PERMISSION_MISSING"]);
    assert_eq!(reason(named(&stranger.id, &[])).await, ["TENANT_NOT_FOUND"]);
    assert_eq!(reason(named(&request_id(), &[])).await, ["TENANT_NOT_FOUND"]);
    let disable = v1::DisableAccountRequest { user_id: viewer.id.clone(), ..Default::default() };
    t.operator().auth.disable_account(disable).await.unwrap();
    assert_eq!(reason(named(&viewer.id, &[])).await, ["TENANT_NOT_FOUND"]);
    let mut service = t.with_key(&t.service_key(&["usage.write"]).await);
    let both = v1::AuthorizeRequest { subject_token: "x".to_owned(), ..named(&viewer.id, &[]) };
    assert_eq!(wrong_fields(service.auth.authorize(both).await), ["subject_user_id"]);
    assert_eq!(wrong_fields(service.auth.authorize(named("bob", &[])).await), ["subject_user_id"]);
    let own = t.with_token(&acme.owner.token).auth.authorize(named(&viewer.id, &[])).await;
    assert_eq!(wrong_fields(own), ["subject_user_id"]);
}

async fn a_yes_says_what_permissions_come_from(t: &Bed) {
    let acme = t.tenant("acme").await;
    let viewer = t.member(&acme, "viewer").await;
    let asked = v1::AuthorizeRequest { explain: true, ..question(&viewer, &["tenant.read", "members.invite"], &[]) };
    let mut service = service(t).await;
    let told = service.auth.authorize(asked.clone()).await.unwrap().into_inner().explanation;
    assert_eq!((told[0].held, &told[0].roles[..], told[0].other_roles.len()), (true, &["viewer".to_owned()][..], 0));
    assert_eq!((told[1].held, told[1].roles.len(), told[1].key), (false, 0, None));
    assert!(told[1].other_roles.contains(&"owner".to_owned()), "{told:?}");
    assert!(!told[1].other_roles.contains(&"viewer".to_owned()), "{told:?}");
    let unasked = v1::AuthorizeRequest { explain: false, ..asked.clone() };
    assert_eq!(service.auth.authorize(unasked).await.unwrap().into_inner().explanation, []);
    let key = v1::CreateApiKeyRequest {
        display_name: "reads".to_owned(),
        permissions: vec!["tenant.read".to_owned()],
        ..Default::default()
    };
    let key = t.with_token(&acme.owner.token).auth.create_api_key(key).await.unwrap().into_inner().secret;
    let of_key = v1::AuthorizeRequest { subject_token: String::new(), subject_api_key: key, ..asked };
    let told = service.auth.authorize(of_key).await.unwrap().into_inner().explanation;
    assert_eq!(
        told.iter().map(|one| (one.held, one.key)).collect::<Vec<_>>(),
        [(true, Some(true)), (false, Some(false))]
    );
}

/// Where in the feed a revision is.
fn place(revision: &str) -> i64 {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(revision).expect("a revision");
    i64::from_be_bytes(bytes[1..9].try_into().expect("eight bytes"))
}

/// What an answer's metadata say.
fn said<T>(answer: &Response<T>, name: &str) -> Option<String> {
    answer.metadata().get(name).map(|value| value.to_str().unwrap().to_owned())
}

async fn every_answer_says_on_what_it_was_decided(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    let read = owner.tenants.get_settings(v1::GetSettingsRequest::default()).await.unwrap();
    assert_eq!(said(&read, "tenantry-revision").unwrap().len(), 18);
    assert!(said(&read, "tenantry-staleness").unwrap().parse::<u64>().unwrap() < 5000);
    assert_eq!(said(&read, "tenantry-max-staleness").as_deref(), Some("5000"));
    assert_eq!(said(&read, "tenantry-effective-everywhere-in"), None);
    let rename = |name: &str| v1::UpdateTenantRequest {
        display_name: name.to_owned(),
        update_mask: Some(prost_types::FieldMask { paths: vec!["display_name".to_owned()] }),
        ..Default::default()
    };
    let first = owner.tenants.update_tenant(rename("One")).await.unwrap();
    let second = owner.tenants.update_tenant(rename("Two")).await.unwrap();
    assert_eq!(said(&first, "tenantry-effective-everywhere-in").as_deref(), Some("5000"));
    let at = |answer: &Response<v1::UpdateTenantResponse>| place(&said(answer, "tenantry-revision").unwrap());
    assert!(at(&first) < at(&second));
    let asked = v1::AuthorizeRequest {
        at_least_revision: said(&second, "tenantry-revision").unwrap(),
        ..question(&acme.owner, &[], &[])
    };
    let decided = service(t).await.auth.authorize(asked).await.unwrap();
    assert_eq!(said(&decided, "tenantry-revision"), None, "the answer itself says it");
    let decided = decided.into_inner();
    assert!(place(&decided.revision) >= at(&second));
    assert_eq!(decided.max_staleness.unwrap().seconds, 5);
    assert!(decided.staleness.unwrap().seconds < 5);
}

async fn a_revision_of_another_history_is_lost(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut service = service(t).await;
    let now = service.auth.authorize(question(&acme.owner, &[], &[])).await.unwrap().into_inner().revision;
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(&now).unwrap();
    let mut of_the_future = bytes.clone();
    of_the_future[2] = 1;
    let mut of_another = bytes.clone();
    *of_another.last_mut().unwrap() ^= 1;
    // Also one that is not among the newest that a server has seen since it started.
    let of_the_beginning = vec![1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    for lost in [of_the_future, of_another, of_the_beginning] {
        let revision = BASE64_URL_SAFE_NO_PAD.encode(&lost);
        let asked = v1::AuthorizeRequest { at_least_revision: revision.clone(), ..question(&acme.owner, &[], &[]) };
        assert_refused(service.auth.authorize(asked).await, Code::Aborted, "REVISION_LOST");
        let headers = crate::harness::Headers::default()
            .and("authorization", &format!("Bearer {}", acme.owner.token))
            .and("tenantry-at-least-revision", &revision);
        let read = Clients::new(t.channel(), headers).tenants.get_settings(v1::GetSettingsRequest::default()).await;
        assert_refused(read, Code::Aborted, "REVISION_LOST");
    }
    let odd = v1::AuthorizeRequest { at_least_revision: "now".to_owned(), ..question(&acme.owner, &[], &[]) };
    assert_eq!(wrong_fields(service.auth.authorize(odd).await), ["at_least_revision"]);
    let same = v1::AuthorizeRequest { at_least_revision: now, ..question(&acme.owner, &[], &[]) };
    assert!(service.auth.authorize(same).await.unwrap().into_inner().allowed);
}

/// Numbers that are missing in the feed were lost, as in a failover; those before its first were compacted away.
async fn a_revision_that_was_lost_is_told_from_one_that_was_compacted_away(t: Bed) {
    let acme = t.tenant("acme").await;
    for limit in 1..5 {
        t.set_limit(&acme, "quizzes", v1::set_limit_override_request::Value::Limit(limit)).await;
    }
    t.execute_unseen("delete from change where seq in (0, 1, 3) and $1 is not null", &acme.id).await;
    let t = t.restart().await;
    let mut service = service(&t).await;
    let mut ask = async |seq: u8| {
        let revision = BASE64_URL_SAFE_NO_PAD.encode([1, 0, 0, 0, 0, 0, 0, 0, seq, 0, 0, 0, 1]);
        let asked = v1::AuthorizeRequest { at_least_revision: revision, ..question(&acme.owner, &[], &[]) };
        service.auth.authorize(asked).await
    };
    assert!(ask(1).await.unwrap().into_inner().allowed);
    assert_refused(ask(2).await, Code::Aborted, "REVISION_LOST");
    assert_refused(ask(3).await, Code::Aborted, "REVISION_LOST");
}

/// Somebody who asks for themselves is looked at as of the revision as well, not as the gate has seen them before.
async fn whoever_asks_for_themselves_is_looked_at_as_of_the_revision_too(t: Bed) {
    if t.engine == Engine::Sqlite {
        return;
    }
    let other = t.sibling(&[]).await;
    let acme = t.tenant("acme").await;
    for _ in 0..30 {
        let bob = t.member(&acme, "viewer").await;
        let mut own = other.with_token(&bob.token);
        let ask = v1::AuthorizeRequest { subject_token: String::new(), ..question(&bob, &[], &[]) };
        assert!(own.auth.authorize(ask.clone()).await.unwrap().into_inner().allowed);
        let disable = v1::DisableAccountRequest { user_id: bob.id.clone(), ..Default::default() };
        let disabled = t.operator().auth.disable_account(disable).await.unwrap();
        let at_least_revision = said(&disabled, "tenantry-revision").unwrap();
        let refused = own.auth.authorize(v1::AuthorizeRequest { at_least_revision, ..ask }).await;
        assert_refused(refused, Code::Unauthenticated, "CREDENTIAL_INVALID");
    }
}

/// A reader who takes nothing keeps nothing from others: their questions are answered into a place that was there before.
async fn a_stream_that_is_not_read_holds_nobody_up(t: &Bed) {
    let acme = t.tenant("acme").await;
    let (ask, asked) = mpsc::channel(1);
    let unread = service(t).await.auth.authorize_stream(ReceiverStream::new(asked)).await.unwrap();
    let mut service = service(t).await;
    // As many as fit: slugs that nobody has, each looked up.
    let mut sent = 0;
    while let Ok(()) = tokio::time::timeout(std::time::Duration::from_millis(300), async {
        let odd = v1::AuthorizeRequest { tenant: crate::harness::unique("nobody"), ..question(&acme.owner, &[], &[]) };
        ask.send(v1::AuthorizeStreamRequest { correlation_id: "x".repeat(100), question: Some(odd) }).await.unwrap();
    })
    .await
    {
        sent += 1;
        if sent > 5_000 {
            break;
        }
    }
    for _ in 0..20 {
        let slug = crate::harness::unique("nobody");
        let other = v1::AuthorizeRequest { tenant: slug, ..question(&acme.owner, &[], &[]) };
        assert_refused(service.auth.authorize(other).await, Code::InvalidArgument, "TENANT_CONFLICT");
    }
    drop(unread);
}

const PRODUCT: &str = r#"
default_plan = "free"
[features]
themes = "Themes of one's own"
exports = "Exports"
[plans.free]
features = ["themes"]
"#;

async fn a_feature_that_is_missing_is_told_with_its_remedy(t: Bed) {
    let t = Bed::of_product(t.engine, PRODUCT).await;
    let acme = t.tenant("acme").await;
    let mut service = service(&t).await;
    let ask = v1::AuthorizeRequest {
        features: ["themes", "exports", "wings"].map(str::to_owned).to_vec(),
        ..question(&acme.owner, &[], &[])
    };
    let mut told = async || {
        let decision = service.auth.authorize(ask.clone()).await.unwrap().into_inner();
        assert!(!decision.allowed);
        let one = |r: &v1::DenyReason| (r.reason.clone(), r.subject.clone(), r.remedy());
        decision.reasons.iter().map(one).collect::<Vec<_>>()
    };
    let is = |reason: &str, subject: &str, remedy| (reason.to_owned(), subject.to_owned(), remedy);
    let unknown = is("FEATURE_UNKNOWN", "wings", v1::Remedy::Unspecified);
    let not_sold = is("FEATURE_NOT_IN_PLAN", "exports", v1::Remedy::UpgradeOrWait);
    assert_eq!(told().await, [not_sold.clone(), unknown.clone()]);
    let switch = |tenant: &str, feature: &str, value| v1::SetFeatureRequest {
        tenant: tenant.to_owned(),
        feature: feature.to_owned(),
        value: Some(value),
        ..Default::default()
    };
    let mut owner = t.with_token(&acme.owner.token).tenants;
    owner.set_feature(switch("", "themes", Switch::Enabled(false))).await.unwrap();
    let off = is("FEATURE_OFF", "themes", v1::Remedy::TenantAdmin);
    assert_eq!(told().await, [off, not_sold, unknown.clone()]);
    let mut operator = t.operator().tenants;
    let by_operator = |feature, value| v1::SetFeatureRequest { r#override: true, ..switch(&acme.id, feature, value) };
    operator.set_feature(by_operator("themes", Switch::Enabled(false))).await.unwrap();
    operator.set_feature(by_operator("exports", Switch::Enabled(true))).await.unwrap();
    assert_eq!(told().await, [is("FEATURE_OFF", "themes", v1::Remedy::Operator), unknown]);
    let has = v1::TestPermissionsRequest {
        subject_token: acme.owner.token.clone(),
        features: ["themes", "exports"].map(str::to_owned).to_vec(),
        ..Default::default()
    };
    assert_eq!(service.auth.test_permissions(has).await.unwrap().into_inner().features, ["exports"]);
}

/// Suspends and reactivates a member; what the answer says of it.
async fn set_suspended(members: &mut Clients, tenant: &Tenant, person: &Person, suspended: bool) -> String {
    let (tenant, user_id) = (tenant.id.clone(), person.id.clone());
    let revision = if suspended {
        let request = v1::SuspendMemberRequest { tenant, user_id, ..Default::default() };
        said(&members.members.suspend_member(request).await.unwrap(), "tenantry-revision")
    } else {
        let request = v1::ReactivateMemberRequest { tenant, user_id, ..Default::default() };
        said(&members.members.reactivate_member(request).await.unwrap(), "tenantry-revision")
    };
    revision.expect("a revision")
}

async fn what_was_written_at_one_server_is_decided_on_at_the_other_when_asked(t: Bed) {
    if t.engine == Engine::Sqlite {
        return;
    }
    let other = t.sibling(&[]).await;
    let acme = t.tenant("acme").await;
    let bob = t.member(&acme, "manager").await;
    let mut there = service(&t).await;
    let mut service = other.with_key(&t.service_key(&["usage.write"]).await);
    for round in 0..100 {
        let suspended = round % 2 == 0;
        let revision = set_suspended(&mut t.operator(), &acme, &bob, suspended).await;
        let ask = v1::AuthorizeRequest { at_least_revision: revision.clone(), ..question(&bob, &[], &[]) };
        let decided = service.auth.authorize(ask).await.unwrap().into_inner();
        assert_eq!(decided.allowed, !suspended, "round {round}");
        assert!(place(&decided.revision) >= place(&revision));
        // By the header, for every other method.
        let headers = crate::harness::Headers::default()
            .and("authorization", &format!("Bearer {}", bob.token))
            .and("tenantry-at-least-revision", &revision);
        let mut clients = Clients::new(other.channel(), headers);
        let read = clients.tenants.get_settings(v1::GetSettingsRequest::default()).await;
        assert_eq!(read.is_err(), suspended, "round {round}");
        // Where it was written it is so without a word.
        assert_eq!(there.auth.authorize(question(&bob, &[], &[])).await.unwrap().into_inner().allowed, !suspended);
    }
}

async fn a_repetition_tells_a_revision_that_is_not_older_than_the_first_call(t: Bed) {
    if t.engine == Engine::Sqlite {
        return;
    }
    let other = t.sibling(&[]).await;
    let acme = t.tenant("acme").await;
    let request =
        v1::SuspendTenantRequest { tenant: acme.id.clone(), request_id: request_id(), reason: "late".to_owned() };
    let first = t.operator().tenants.suspend_tenant(request.clone()).await.unwrap();
    let again = other.operator().tenants.suspend_tenant(request).await.unwrap();
    let at = |answer: &Response<v1::SuspendTenantResponse>| place(&said(answer, "tenantry-revision").unwrap());
    assert!(at(&again) >= at(&first));
    assert!(said(&again, "tenantry-effective-everywhere-in").is_some());
}
