//! Joining by address: who has proven an address of a domain that a tenant has proven becomes a member of it, when the tenant
//! wants that, and not otherwise.

use tenantry::rpc::v1;

use crate::harness::{Bed, PASSWORD, Person, Tenant, on_both_engines, unique};
use crate::links::{prove, token_of};
use crate::oidc::proven;

on_both_engines! {
    who_proves_an_address_of_the_tenants_domain_joins_it
    an_address_that_is_not_proven_joins_nothing
    a_tenant_that_wants_it_later_is_joined_at_the_next_sign_in
    who_left_or_is_invited_is_not_joined
    nobody_joins_beyond_the_seats
    a_tenant_that_is_not_open_is_not_joined;
    alone
    a_confirmed_sign_up_joins
}

/// A tenant with a proven domain, whose people join as this.
async fn joinable(t: &Bed, role: Option<&str>) -> (Tenant, String) {
    let tenant = t.tenant("acme").await;
    let domain = proven(t, &tenant).await;
    if let Some(role) = role {
        joins(t, &tenant, role).await;
    }
    (tenant, domain)
}

async fn joins(t: &Bed, tenant: &Tenant, role: &str) {
    let request = v1::UpdateSettingsRequest {
        tenant: tenant.id.clone(),
        settings: Some(v1::Settings {
            auto_join: Some(v1::AutoJoin { enabled: Some(true), role: role.to_owned() }),
            ..Default::default()
        }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["auto_join".to_owned()] }),
        ..Default::default()
    };
    t.with_token(&tenant.owner.token).tenants.update_settings(request).await.expect("sets");
}

pub(crate) async fn sign_up(t: &Bed, email: &str) -> Person {
    let request = v1::SignUpRequest {
        email: email.to_owned(),
        password: PASSWORD.to_owned(),
        display_name: "Ada".to_owned(),
        ..Default::default()
    };
    let done = t.anonymous().auth.sign_up(request).await.expect("signs up").into_inner();
    let (token, refresh) = (done.access_token.unwrap().token, done.refresh_token.unwrap().token);
    Person { id: done.user.unwrap().user_id, email: email.to_owned(), token, refresh }
}

/// Somebody with a proven address of a domain.
async fn proven_person(t: &Bed, domain: &str) -> Person {
    let person = sign_up(t, &format!("{}@{domain}", unique("ada"))).await;
    prove(t, &person).await;
    person
}

async fn sign_in(t: &Bed, person: &Person) -> v1::LoginResponse {
    let request = v1::LoginRequest { email: person.email.clone(), password: PASSWORD.to_owned(), ..Default::default() };
    t.anonymous().auth.login(request).await.expect("signs in").into_inner()
}

/// The roles that somebody has in a tenant; none when they are no member.
async fn roles(t: &Bed, tenant: &Tenant, person: &Person) -> Option<Vec<String>> {
    let list = v1::ListMembersRequest { tenant: tenant.id.clone(), ..Default::default() };
    let members = t.operator().members.list_members(list).await.expect("lists").into_inner().members;
    members
        .into_iter()
        .find(|member| member.user.as_ref().is_some_and(|user| user.user_id == person.id))
        .map(|member| member.roles)
}

async fn who_proves_an_address_of_the_tenants_domain_joins_it(t: &Bed) {
    let (acme, domain) = joinable(t, Some("viewer")).await;
    let other = proven(t, &t.tenant("globex").await).await;
    let ada = proven_person(t, &domain).await;
    assert_eq!(roles(t, &acme, &ada).await, Some(vec!["viewer".to_owned()]));
    // It is where their calls go from now on, with the token that they have.
    let get = v1::GetTenantRequest::default();
    let there = t.with_token(&ada.token).tenants.get_tenant(get).await.expect("is a member").into_inner();
    assert_eq!(there.tenant.unwrap().tenant_id, acme.id);
    for domain in [format!("sub.{domain}"), other, "example.com".to_owned()] {
        let eve = proven_person(t, &domain).await;
        assert_eq!(roles(t, &acme, &eve).await, None, "{domain}");
    }
    // The log of the tenant says that it was nobody's doing.
    let rows = t.rows::<(String, String)>(
        "select action, changes from audit_event where tenant_id = $1 and action = 'System/AutoJoin'",
        &acme.id,
    );
    let rows = rows.await;
    assert!(rows.len() == 1 && rows[0].1.contains(&domain), "{rows:?}");
}

async fn an_address_that_is_not_proven_joins_nothing(t: &Bed) {
    let (acme, domain) = joinable(t, Some("member")).await;
    let eve = sign_up(t, &format!("{}@{domain}", unique("eve"))).await;
    assert!(sign_in(t, &eve).await.access_token.is_some());
    assert_eq!(roles(t, &acme, &eve).await, None);
    // Who moves to an address of the domain has to prove that one.
    let person = t.person("bob").await;
    let moved = format!("{}@{domain}", unique("bob"));
    let change =
        v1::ChangeEmailRequest { new_email: moved.clone(), password: PASSWORD.to_owned(), ..Default::default() };
    t.with_token(&person.token).auth.change_email(change).await.expect("asks");
    assert_eq!(roles(t, &acme, &person).await, None);
    let token = token_of(&t.last_mail_to(&moved).await);
    t.anonymous().auth.verify_email(v1::VerifyEmailRequest { token }).await.expect("moves");
    assert_eq!(roles(t, &acme, &person).await, Some(vec!["member".to_owned()]));
}

async fn a_tenant_that_wants_it_later_is_joined_at_the_next_sign_in(t: &Bed) {
    let (acme, domain) = joinable(t, None).await;
    let ada = proven_person(t, &domain).await;
    sign_in(t, &ada).await;
    assert_eq!(roles(t, &acme, &ada).await, None, "nobody wanted it");
    joins(t, &acme, "member").await;
    assert_eq!(roles(t, &acme, &ada).await, None);
    let token = sign_in(t, &ada).await.access_token.unwrap().token;
    let me = t.with_token(&token).auth.who_am_i(v1::WhoAmIRequest {}).await.expect("is in").into_inner();
    assert_eq!(me.tenant.unwrap().tenant_id, acme.id, "the sign-in is to the tenant that it has joined");
    assert_eq!(roles(t, &acme, &ada).await, Some(vec!["member".to_owned()]));
}

async fn who_left_or_is_invited_is_not_joined(t: &Bed) {
    let (acme, domain) = joinable(t, Some("viewer")).await;
    let ada = proven_person(t, &domain).await;
    let remove = v1::RemoveMemberRequest { user_id: ada.id.clone(), ..Default::default() };
    t.with_token(&acme.owner.token).members.remove_member(remove).await.expect("removes");
    sign_in(t, &ada).await;
    assert_eq!(roles(t, &acme, &ada).await, None, "who was removed does not come back");

    let email = format!("{}@{domain}", unique("bob"));
    let invite =
        v1::InviteMemberRequest { email: email.clone(), roles: vec!["admin".to_owned()], ..Default::default() };
    let invited = t.with_token(&acme.owner.token).members.invite_member(invite).await.expect("invites").into_inner();
    let bob = sign_up(t, &email).await;
    prove(t, &bob).await;
    assert_eq!(roles(t, &acme, &bob).await, None, "an invitation is accepted as what it says");
    let accept = v1::AcceptInvitationRequest { token: invited.token, ..Default::default() };
    t.with_token(&bob.token).members.accept_invitation(accept).await.expect("accepts");
    assert_eq!(roles(t, &acme, &bob).await, Some(vec!["admin".to_owned()]));
}

async fn nobody_joins_beyond_the_seats(t: &Bed) {
    let (acme, domain) = joinable(t, None).await;
    let mut people = Vec::new();
    for _ in 0..6 {
        people.push(proven_person(t, &domain).await);
    }
    t.set_seats(&acme, 3).await;
    joins(t, &acme, "viewer").await;
    futures::future::join_all(people.iter().map(|person| sign_in(t, person))).await;
    let mut members = 0;
    for person in &people {
        members += i64::from(roles(t, &acme, person).await.is_some());
    }
    assert_eq!(members, 2, "two seats were left beside the owner's");
    t.set_seats(&acme, 7).await;
    for person in &people {
        sign_in(t, person).await;
        assert!(roles(t, &acme, person).await.is_some(), "a seat that there is later is had later");
    }
}

async fn a_tenant_that_is_not_open_is_not_joined(t: &Bed) {
    let (acme, domain) = joinable(t, Some("viewer")).await;
    let suspend =
        v1::SuspendTenantRequest { tenant: acme.id.clone(), reason: "invoice".to_owned(), ..Default::default() };
    t.operator().tenants.suspend_tenant(suspend).await.expect("suspends");
    let ada = proven_person(t, &domain).await;
    let activate = v1::ActivateTenantRequest { tenant: acme.id.clone(), ..Default::default() };
    t.operator().tenants.activate_tenant(activate).await.expect("activates");
    assert_eq!(roles(t, &acme, &ada).await, None);
    sign_in(t, &ada).await;
    assert!(roles(t, &acme, &ada).await.is_some());
}

/// Signs somebody up in two steps.
async fn confirmed(t: &Bed, email: &str, tenant: Option<v1::NewTenant>) -> (Person, Option<v1::Tenant>) {
    let request = v1::SignUpRequest {
        email: email.to_owned(),
        password: PASSWORD.to_owned(),
        display_name: "Ada".to_owned(),
        tenant,
        ..Default::default()
    };
    t.anonymous().auth.sign_up(request).await.expect("asks");
    let token = token_of(&t.last_mail_to(email).await);
    let confirm = v1::ConfirmSignUpRequest { token, ..Default::default() };
    let done = t.anonymous().auth.confirm_sign_up(confirm).await.expect("signs up").into_inner();
    let (token, refresh) = (done.access_token.unwrap().token, done.refresh_token.unwrap().token);
    (Person { id: done.user.unwrap().user_id, email: email.to_owned(), token, refresh }, done.tenant)
}

async fn a_confirmed_sign_up_joins(t: Bed) {
    let t = &Bed::private(t.engine, &["--sign-up=confirm"]).await;
    let slug = unique("acme");
    let tenant = v1::NewTenant { display_name: "Acme".to_owned(), slug: slug.clone() };
    let (owner, tenant) = confirmed(t, "owner@example.com", Some(tenant)).await;
    let acme = Tenant { id: tenant.unwrap().tenant_id, slug, owner };
    let domain = proven(t, &acme).await;
    joins(t, &acme, "viewer").await;
    let (ada, _) = confirmed(t, &format!("ada@{domain}"), None).await;
    assert_eq!(roles(t, &acme, &ada).await, Some(vec!["viewer".to_owned()]));
    let get = v1::GetTenantRequest::default();
    t.with_token(&ada.token).tenants.get_tenant(get).await.expect("with the token of the sign-up");
}
