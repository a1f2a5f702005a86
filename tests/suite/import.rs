//! Imports: users with the hashes that they had, tenants, memberships; in order, repeated, broken off.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use argon2::PasswordHasher as _;
use chrono::TimeDelta;
use prost_types::Timestamp;
use tenantry::rpc::v1;
use tenantry::rpc::v1::import_tenants_request::Item;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::harness::{Bed, PASSWORD, assert_refused, on_both_engines, refusal, unique, until};

on_both_engines! {
    items_are_answered_in_order_and_wrong_ones_let_the_rest_go_on
    what_is_there_does_not_change_when_it_comes_again
    people_sign_in_with_the_hash_that_they_had
    an_account_that_was_here_is_left_alone_but_for_its_id
    a_tenant_goes_on_where_it_stood
    seats_hold_for_imports_too
    an_item_sees_those_before_it
    a_stream_that_was_cut_is_sent_again
    whoever_takes_no_answers_is_not_read_on
    only_operators_import
    an_external_id_is_looked_up
    ;
    alone
    a_key_that_is_revoked_ends_its_stream
}

type Answered = Vec<v1::ImportTenantsResponse>;

fn user(id: &str) -> v1::ImportUser {
    v1::ImportUser {
        external_id: id.to_owned(),
        email: format!("{id}@example.com"),
        display_name: id.to_owned(),
        ..Default::default()
    }
}

fn tenant(id: &str) -> v1::ImportTenant {
    v1::ImportTenant {
        external_id: id.to_owned(),
        slug: id.to_owned(),
        display_name: id.to_owned(),
        ..Default::default()
    }
}

fn place(tenant: &str, user: &str, role: &str) -> v1::ImportMembership {
    v1::ImportMembership {
        tenant_external_id: tenant.to_owned(),
        user_external_id: user.to_owned(),
        role: role.to_owned(),
        ..Default::default()
    }
}

fn request(item: Item) -> v1::ImportTenantsRequest {
    v1::ImportTenantsRequest { item: Some(item) }
}

/// Imports items in one stream.
async fn import(t: &Bed, items: Vec<Item>) -> Answered {
    let items = tokio_stream::iter(items.into_iter().map(request).collect::<Vec<_>>());
    let mut stream = t.operator().tenants.import_tenants(items).await.expect("begins").into_inner();
    let mut answers = Vec::new();
    while let Some(answer) = stream.message().await.expect("goes on") {
        answers.push(answer);
    }
    answers
}

/// What became of each, with the reason of a refusal.
fn outcomes(answers: &Answered) -> Vec<(v1::ImportOutcome, &str)> {
    answers.iter().map(|answer| (answer.outcome(), answer.reason.as_str())).collect()
}

const CREATED: (v1::ImportOutcome, &str) = (v1::ImportOutcome::Created, "");
const UNCHANGED: (v1::ImportOutcome, &str) = (v1::ImportOutcome::Unchanged, "");

const fn refused(reason: &str) -> (v1::ImportOutcome, &str) {
    (v1::ImportOutcome::Refused, reason)
}

async fn items_are_answered_in_order_and_wrong_ones_let_the_rest_go_on(t: &Bed) {
    let (ada, acme) = (unique("ada"), unique("acme"));
    let taken = t.tenant("taken").await;
    let far = Some(Timestamp { seconds: 32_503_680_000, nanos: 0 });
    let locale = v1::Settings { locale: "not a locale".to_owned(), ..Default::default() };
    let items = vec![
        Item::User(user(&ada)),
        Item::User(v1::ImportUser { email: "none".to_owned(), ..user(&unique("x")) }),
        Item::User(v1::ImportUser { external_id: String::new(), ..user(&unique("x")) }),
        Item::User(v1::ImportUser { external_id: "é".to_owned(), ..user(&unique("x")) }),
        Item::User(v1::ImportUser { password_hash: "md5".to_owned(), ..user(&unique("x")) }),
        Item::User(v1::ImportUser { create_time: far, ..user(&unique("x")) }),
        Item::User(v1::ImportUser { email: format!("{ada}@example.com"), ..user(&unique("x")) }),
        Item::User(v1::ImportUser { external_id: ada.clone(), ..user(&unique("x")) }),
        Item::Tenant(tenant(&acme)),
        Item::Tenant(v1::ImportTenant { slug: "admin".to_owned(), ..tenant(&unique("x")) }),
        Item::Tenant(v1::ImportTenant { slug: taken.slug.clone(), ..tenant(&unique("x")) }),
        Item::Tenant(v1::ImportTenant { plan: "nothing".to_owned(), ..tenant(&unique("x")) }),
        Item::Tenant(v1::ImportTenant { cycle: 1, ..tenant(&unique("x")) }),
        Item::Tenant(v1::ImportTenant { cycle: 9, ..tenant(&unique("x")) }),
        Item::Tenant(v1::ImportTenant { settings: Some(locale), ..tenant(&unique("x")) }),
        Item::Tenant(v1::ImportTenant { subscription_status: 1, ..tenant(&unique("x")) }),
        Item::Membership(place(&acme, &ada, "owner")),
        Item::Membership(place(&acme, &ada, "emperor")),
        Item::Membership(place(&unique("x"), &ada, "owner")),
        Item::Membership(place(&acme, &unique("x"), "owner")),
    ];
    let count = items.len();
    let mut answers = import(t, items).await;
    assert_eq!(answers.iter().map(|a| a.index).collect::<Vec<_>>(), (0..).take(count).collect::<Vec<_>>());
    let wrong = refused("FIELDS_INVALID");
    let mut expected = vec![CREATED];
    expected.extend([wrong; 5]);
    expected.extend([refused("EMAIL_TAKEN"), refused("EXTERNAL_ID_TAKEN"), CREATED, wrong, refused("SLUG_TAKEN")]);
    expected.extend([refused("PLAN_UNKNOWN"), wrong, wrong, wrong, wrong, CREATED, wrong]);
    expected.extend([refused("EXTERNAL_ID_UNKNOWN"), refused("EXTERNAL_ID_UNKNOWN")]);
    assert_eq!(outcomes(&answers), expected);
    let told = |index: usize| answers[index].message.clone();
    assert!(told(1).contains("`email`") && told(2).contains("`external_id`") && told(4).contains("`password_hash`"));
    assert!(told(14).contains("`settings.locale`") && told(18).starts_with("`tenant_external_id`"), "{}", told(18));
    assert!(told(19).starts_with("`user_external_id`"), "{}", told(19));

    // What is no item at all is refused like the rest.
    let none = tokio_stream::iter([v1::ImportTenantsRequest::default(), request(Item::User(user(&unique("y"))))]);
    let mut stream = t.operator().tenants.import_tenants(none).await.unwrap().into_inner();
    answers.clear();
    while let Some(answer) = stream.message().await.unwrap() {
        answers.push(answer);
    }
    assert_eq!(outcomes(&answers), [wrong, CREATED]);
}

async fn what_is_there_does_not_change_when_it_comes_again(t: &Bed) {
    let (ada, acme) = (unique("ada"), unique("acme"));
    let items = || {
        vec![
            Item::User(user(&ada)),
            Item::Tenant(tenant(&acme)),
            Item::Membership(v1::ImportMembership { default: true, ..place(&acme, &ada, "admin") }),
        ]
    };
    let first = import(t, items()).await;
    assert_eq!(outcomes(&first), [CREATED; 3]);
    let id = &first[1].id;
    let actions = |rows: Vec<crate::rows::AuditRow>| rows.into_iter().map(|row| row.action).collect::<Vec<_>>();
    assert_eq!(actions(t.audit(id).await), ["TenantService/ImportTenants"; 2]);
    let feed = "select count(*), max(seq) from change where tenant_id = $1";
    let before: Vec<(i64, i64)> = t.rows(feed, id).await;
    // Other values in an item that is there change nothing either.
    let mut again = items();
    again[1] = Item::Tenant(v1::ImportTenant { display_name: "Another".to_owned(), ..tenant(&acme) });
    again[2] = Item::Membership(place(&acme, &ada, "viewer"));
    let second = import(t, again).await;
    assert_eq!(outcomes(&second), [UNCHANGED; 3]);
    assert_eq!(first.iter().map(|a| &a.id).collect::<Vec<_>>(), second.iter().map(|a| &a.id).collect::<Vec<_>>());
    assert_eq!(t.rows::<(i64, i64)>(feed, id).await, before, "nothing was written");
    assert_eq!(t.audit(id).await.len(), 2);
    let member = v1::GetMemberRequest { tenant: id.clone(), user_id: first[0].id.clone() };
    assert_eq!(t.operator().members.get_member(member).await.unwrap().into_inner().member.unwrap().roles, ["admin"]);
    let default: Vec<(Vec<u8>,)> = match t.database {
        None => t.rows("select default_tenant_id from user_account where user_id = $1", &first[0].id).await,
        Some(_) => {
            t.rows("select uuid_send(default_tenant_id) from user_account where user_id = $1", &first[0].id).await
        }
    };
    assert_eq!(default[0].0, id.parse::<uuid::Uuid>().unwrap().as_bytes());
}

/// The stored hash of a person.
async fn stored(t: &Bed, user: &str) -> Vec<(String,)> {
    t.rows("select password_hash from credential where user_id = $1", user).await
}

async fn login(t: &Bed, email: &str, password: &str) -> Result<tonic::Response<v1::LoginResponse>, Status> {
    let request = v1::LoginRequest { email: email.to_owned(), password: password.to_owned(), ..Default::default() };
    t.anonymous().auth.login(request).await
}

async fn people_sign_in_with_the_hash_that_they_had(t: &Bed) {
    let params = argon2::Params::new(16, 3, 2, None).unwrap();
    let argon = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let argon = argon.hash_password_with_salt(PASSWORD.as_bytes(), b"a salt of its own").unwrap().to_string();
    let long = "x".repeat(80);
    let bcrypt = |password: &str| bcrypt::hash(password, 4).unwrap();
    let people = [
        (unique("argon"), argon, PASSWORD),
        (unique("two-b"), bcrypt(PASSWORD), PASSWORD),
        (unique("two-y"), bcrypt(PASSWORD).replacen("$2b$", "$2y$", 1), PASSWORD),
        (unique("two-a"), bcrypt(PASSWORD).replacen("$2b$", "$2a$", 1), PASSWORD),
        (unique("long"), bcrypt(&long), long.as_str()),
        (unique("none"), String::new(), PASSWORD),
    ];
    let item = |(name, hash, _): &(String, String, &str)| {
        Item::User(v1::ImportUser { password_hash: hash.clone(), ..user(name) })
    };
    let answers = import(t, people.iter().map(item).collect()).await;
    assert_eq!(outcomes(&answers), [CREATED; 6]);
    for ((name, hash, password), answer) in people.iter().zip(&answers) {
        let email = format!("{name}@example.com");
        assert_refused(login(t, &email, "wrong horse battery").await, Code::Unauthenticated, "PASSWORD_WRONG");
        if hash.is_empty() {
            assert_refused(login(t, &email, password).await, Code::Unauthenticated, "PASSWORD_WRONG");
            continue;
        }
        assert_eq!(stored(t, &answer.id).await, [(hash.clone(),)]);
        login(t, &email, password).await.unwrap_or_else(|e| panic!("{name}: {e:?}"));
        let now = stored(t, &answer.id).await.remove(0).0;
        assert!(now.starts_with("$argon2id$v=19$m=8,t=1,p=1$"), "{name}: {now}");
        login(t, &email, password).await.expect("with the new hash");
    }
    // bcrypt saw the first 72 bytes only; the new hash sees all of them.
    let email = format!("{}@example.com", people[4].0);
    assert_refused(login(t, &email, &long[..79]).await, Code::Unauthenticated, "PASSWORD_WRONG");
}

async fn an_account_that_was_here_is_left_alone_but_for_its_id(t: &Bed) {
    let (ada, id) = (t.person("ada").await, unique("ext"));
    let item = |id: &str, email: &str| {
        let hash = bcrypt::hash("another password", 4).unwrap();
        Item::User(v1::ImportUser { email: email.to_owned(), password_hash: hash, ..user(id) })
    };
    let other = format!("{}@example.com", unique("other"));
    let answers = import(
        t,
        vec![item(&id, &ada.email), item(&id, &ada.email), item(&unique("ext"), &ada.email), item(&id, &other)],
    )
    .await;
    let expected = [CREATED, UNCHANGED, refused("EMAIL_TAKEN"), refused("EXTERNAL_ID_TAKEN")];
    assert_eq!(outcomes(&answers), expected);
    assert_eq!((&answers[0].id, &answers[1].id), (&ada.id, &ada.id));
    login(t, &ada.email, PASSWORD).await.expect("with the password that it had");
    let audits = "select count(*) from platform_audit where subject_id = $1 and action = 'TenantService/ImportTenants'";
    assert_eq!(t.rows::<(i64,)>(audits, &ada.id).await, [(1,)]);
}

const PLANS: &str = r#"
default_plan = "free"
[plans.free]
seats = 2
[plans.pro]
currency = "EUR"
price = { month = 1900, year = 19000 }
grace_days = 5
"#;

async fn a_tenant_goes_on_where_it_stood(t: &Bed) {
    let t = Bed::of_product(t.engine, PLANS).await;
    let now = tenantry::time::Clock::now(&*t.clock).seconds();
    let at = |days: i64| Some(Timestamp { seconds: now + days * 86_400, nanos: 0 });
    let settings = v1::Settings { locale: "de-DE".to_owned(), ..Default::default() };
    let ids = v1::ProviderIds { customer: "cus_1".to_owned(), ..Default::default() };
    let status = |status: v1::SubscriptionStatus| v1::ImportTenant {
        plan: "pro".to_owned(),
        subscription_status: status.into(),
        ..tenant(&unique("acme"))
    };
    let items = [
        v1::ImportTenant {
            cycle: v1::BillingCycle::Year.into(),
            paid_until_time: at(100),
            settings: Some(settings),
            provider_ids: Some(ids),
            create_time: at(-400),
            ..status(v1::SubscriptionStatus::Active)
        },
        v1::ImportTenant { trial_end_time: at(3), ..status(v1::SubscriptionStatus::Trialing) },
        v1::ImportTenant { suspend_reason: "fraud".to_owned(), ..status(v1::SubscriptionStatus::Active) },
        status(v1::SubscriptionStatus::Cancelled),
        v1::ImportTenant { paid_until_time: at(-10), ..status(v1::SubscriptionStatus::Active) },
        tenant(&unique("acme")),
    ];
    let answers = import(&t, items.iter().cloned().map(Item::Tenant).collect()).await;
    assert_eq!(outcomes(&answers), [CREATED; 6]);
    let mut operator = t.operator();
    let mut shown = Vec::new();
    for answer in &answers {
        let get = v1::GetTenantRequest { tenant: answer.id.clone() };
        shown.push(operator.tenants.get_tenant(get).await.unwrap().into_inner().tenant.unwrap());
    }
    let statuses: Vec<v1::TenantStatus> = shown.iter().map(v1::Tenant::status).collect();
    assert_eq!(
        statuses,
        [
            v1::TenantStatus::Active,
            v1::TenantStatus::Trial,
            v1::TenantStatus::Suspended,
            v1::TenantStatus::Cancelled,
            v1::TenantStatus::Suspended,
            v1::TenantStatus::Active
        ]
    );
    assert_eq!(shown[0].create_time.unwrap().seconds, now - 400 * 86_400);
    assert_eq!(shown[0].external_id, items[0].external_id);
    assert_eq!((shown[2].suspend_reason.as_str(), shown[2].suspend_cause()), ("fraud", v1::SuspendCause::Operator));
    assert_eq!(shown[4].suspend_cause(), v1::SuspendCause::Billing);
    assert_eq!(shown[5].plan, "free");
    let get = v1::GetSubscriptionRequest { tenant: answers[0].id.clone() };
    let s = operator.tenants.get_subscription(get).await.unwrap().into_inner().subscription.unwrap();
    assert_eq!(
        (s.cycle(), s.price, s.provider_ids.unwrap().customer.as_str()),
        (v1::BillingCycle::Year, 19_000, "cus_1")
    );
    assert_eq!(s.period_end_time.unwrap().seconds, now + 100 * 86_400);
    let get = v1::GetSettingsRequest { tenant: answers[0].id.clone() };
    assert_eq!(operator.tenants.get_settings(get).await.unwrap().into_inner().settings.unwrap().locale, "de-DE");
    // Time goes on from there.
    t.clock.advance(TimeDelta::days(4));
    let get = v1::GetTenantRequest { tenant: answers[1].id.clone() };
    let ended = operator.tenants.get_tenant(get).await.unwrap().into_inner().tenant.unwrap();
    assert_eq!(ended.suspend_cause(), v1::SuspendCause::TrialEnded);
}

async fn seats_hold_for_imports_too(t: &Bed) {
    let t = Bed::of_product(t.engine, PLANS).await;
    let acme = unique("acme");
    let mut items = vec![Item::Tenant(tenant(&acme))];
    items.extend((0..4).map(|n| Item::User(user(&format!("{acme}-{n}")))));
    items.push(Item::Membership(place(&acme, &format!("{acme}-0"), "owner")));
    items.push(Item::Membership(v1::ImportMembership {
        suspended: true,
        ..place(&acme, &format!("{acme}-1"), "member")
    }));
    items.extend((2..4).map(|n| Item::Membership(place(&acme, &format!("{acme}-{n}"), "member"))));
    let answers = import(&t, items).await;
    assert_eq!(outcomes(&answers)[5..], [CREATED, CREATED, CREATED, refused("SEATS_EXHAUSTED")]);
}

async fn an_item_sees_those_before_it(t: &Bed) {
    let run = unique("run");
    let mut items = Vec::new();
    for n in 0..60 {
        let (ada, acme) = (format!("{run}-u{n}"), format!("{run}-t{n}"));
        items.push(Item::Tenant(tenant(&acme)));
        items.push(Item::User(user(&ada)));
        items.push(Item::Membership(place(&acme, &ada, "owner")));
        // The same again, while the first may still be under way.
        items.push(Item::User(user(&ada)));
        items.push(Item::Tenant(tenant(&acme)));
        items.push(Item::Tenant(v1::ImportTenant { slug: acme.clone(), ..tenant(&format!("{acme}-x")) }));
    }
    let answers = import(t, items).await;
    for chunk in answers.chunks(6) {
        let expected = [CREATED, CREATED, CREATED, UNCHANGED, UNCHANGED, refused("SLUG_TAKEN")];
        assert_eq!(outcomes(&chunk.to_vec()), expected);
    }
}

async fn a_stream_that_was_cut_is_sent_again(t: &Bed) {
    let run = unique("run");
    let items: Vec<Item> = (0..200).map(|n| Item::Tenant(tenant(&format!("{run}-{n}")))).collect();
    let requests: Vec<_> = items.iter().cloned().map(request).collect();
    let mut stream = t.operator().tenants.import_tenants(tokio_stream::iter(requests)).await.unwrap().into_inner();
    for _ in 0..20 {
        assert_eq!(stream.message().await.unwrap().unwrap().outcome(), v1::ImportOutcome::Created);
    }
    drop(stream);
    let answers = import(t, items).await;
    assert_eq!(answers.len(), 200);
    assert!(answers.iter().all(|answer| answer.outcome() != v1::ImportOutcome::Refused));
    assert!(answers[..20].iter().all(|answer| answer.outcome() == v1::ImportOutcome::Unchanged));
}

async fn whoever_takes_no_answers_is_not_read_on(t: &Bed) {
    let (send, items) = mpsc::channel(1);
    let stream = t.operator().tenants.import_tenants(ReceiverStream::new(items)).await.unwrap();
    let taken = Arc::new(AtomicUsize::new(0));
    let count = taken.clone();
    // Nothing is right with it, so the answer is long and costs nothing.
    let item = request(Item::User(v1::ImportUser { password_hash: "x".repeat(2000), ..Default::default() }));
    let sender = tokio::spawn(async move {
        while send.send(item.clone()).await.is_ok() {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let mut last = (0, 0);
    until("it stands still", || {
        let now = taken.load(Ordering::SeqCst);
        last = if now > 0 && now == last.0 { (now, last.1 + 1) } else { (now, 0) };
        std::future::ready(last.1 >= 25)
    })
    .await;
    assert!(last.0 < 20_000, "{} items were read ahead", last.0);
    // Taken up again, it goes on.
    let mut stream = stream.into_inner();
    for _ in 0..last.0 {
        assert_eq!(stream.message().await.unwrap().unwrap().reason, "FIELDS_INVALID");
    }
    until("more is read", async || taken.load(Ordering::SeqCst) > last.0).await;
    sender.abort();
}

async fn only_operators_import(t: &Bed) {
    let acme = t.tenant("acme").await;
    let items = || tokio_stream::iter([request(Item::User(user(&unique("x"))))]);
    let by_owner =
        t.with_token(&acme.owner.token).tenants.import_tenants(items()).await.map(|_| tonic::Response::new(()));
    assert_refused(by_owner, Code::PermissionDenied, "CALLER_KIND_REFUSED");
    let key = t.service_key(&["*"]).await;
    let by_service = t.with_key(&key).tenants.import_tenants(items()).await.map(|_| tonic::Response::new(()));
    assert_refused(by_service, Code::PermissionDenied, "CALLER_KIND_REFUSED");
}

async fn an_external_id_is_looked_up(t: &Bed) {
    use v1::lookup_external_id_request::Kind;
    let (ada, acme) = (unique("ada"), unique("acme"));
    let answers = import(t, vec![Item::User(user(&ada)), Item::Tenant(tenant(&acme))]).await;
    let mut service = t.with_key(&t.service_key(&["tenant.read"]).await).tenants;
    let lookup = |kind| v1::LookupExternalIdRequest { kind };
    let found = service.lookup_external_id(lookup(Some(Kind::UserExternalId(ada.clone())))).await.unwrap();
    assert_eq!(found.into_inner().id, answers[0].id);
    let found = service.lookup_external_id(lookup(Some(Kind::TenantExternalId(acme.clone())))).await.unwrap();
    assert_eq!(found.into_inner().id, answers[1].id);
    let unknown = service.lookup_external_id(lookup(Some(Kind::TenantExternalId(ada)))).await;
    assert_refused(unknown, Code::NotFound, "EXTERNAL_ID_UNKNOWN");
    for wrong in [None, Some(Kind::UserExternalId(String::new())), Some(Kind::UserExternalId("x".repeat(129)))] {
        let refused = service.lookup_external_id(lookup(wrong)).await;
        assert_refused(refused, Code::InvalidArgument, "FIELDS_INVALID");
    }
    let mut weak = t.with_key(&t.service_key(&["usage.read"]).await).tenants;
    let refused = weak.lookup_external_id(lookup(Some(Kind::TenantExternalId(acme)))).await;
    assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING");
}

async fn a_key_that_is_revoked_ends_its_stream(t: Bed) {
    let (send, items) = mpsc::channel(1);
    let mut stream = t.operator().tenants.import_tenants(ReceiverStream::new(items)).await.unwrap().into_inner();
    send.send(request(Item::User(user(&unique("x"))))).await.unwrap();
    assert_eq!(stream.message().await.unwrap().unwrap().outcome(), v1::ImportOutcome::Created);
    // `$1` is nobody: all operator keys of this server go.
    let sql = "update platform_key set revoked_at = created_at where kind = 4 and platform_key_id <> $1";
    t.execute(sql, &uuid::Uuid::nil().to_string()).await;
    t.clock.advance(TimeDelta::minutes(1));
    send.send(request(Item::User(user(&unique("x"))))).await.unwrap();
    let ended = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended as if all were well"),
            Err(status) => break status,
        }
    };
    assert_eq!(refusal::<()>(Err(ended)), (Code::Unauthenticated, "CREDENTIAL_INVALID".to_owned()));
}
