//! Sessions: which there are, and their end, by the person and by an administrator of a tenant.

use tenantry::rpc::v1;
use tonic::Code;

use crate::harness::{Bed, Clients, Engine, Headers, PASSWORD, Person, Tenant, assert_refused, on_both_engines, until};
use crate::harness::{request_id, wrong_fields};
use crate::refresh::{next, refresh, spent};

on_both_engines! {
    the_list_shows_where_one_is_signed_in
    the_list_has_pages
    after_a_logout_nothing_of_the_session_works
    a_revoked_session_ends_and_the_others_go_on
    nobody_ends_a_session_of_another
    all_sessions_end_or_all_but_this_one
    an_administrator_sees_the_sessions_that_are_at_work_in_the_tenant
    what_an_administrator_ends_is_the_work_in_the_tenant
    an_administrator_ends_one_session_of_a_member
    nobody_sees_or_ends_sessions_of_a_higher_rank
    a_choice_of_the_tenant_is_kept_when_asked
    a_token_is_told_about_to_services
    ;
    alone
    a_sign_in_on_an_unknown_device_is_told_by_mail
}

/// The session of somebody's token.
pub(crate) async fn session_of(t: &Bed, person: &Person) -> v1::Session {
    let shown = list(t, person).await;
    shown.into_iter().find(|session| session.current).expect("the session of the call")
}

async fn list(t: &Bed, person: &Person) -> Vec<v1::Session> {
    let answer = t.with_token(&person.token).auth.list_sessions(v1::ListSessionsRequest::default()).await;
    answer.expect("lists").into_inner().sessions
}

async fn works(t: &Bed, person: &Person) {
    t.with_token(&person.token).auth.who_am_i(v1::WhoAmIRequest {}).await.expect("works");
}

/// Neither its access token nor its refresh token is good.
async fn is_over(t: &Bed, person: &Person) {
    let who = t.with_token(&person.token).auth.who_am_i(v1::WhoAmIRequest {}).await;
    assert_refused(who, Code::Unauthenticated, "CREDENTIAL_INVALID");
    spent(refresh(t, &person.refresh).await);
}

async fn the_list_shows_where_one_is_signed_in(t: &Bed) {
    let acme = t.tenant("acme").await;
    let device = v1::Device { display_name: "Ann's phone".to_owned(), user_agent: "Mozilla/5.0".to_owned() };
    let asked = v1::LoginRequest {
        email: acme.owner.email.clone(),
        password: PASSWORD.to_owned(),
        device: Some(device.clone()),
        ..Default::default()
    };
    t.anonymous().auth.login(asked).await.expect("signs in");
    let shown = list(t, &acme.owner).await;
    assert_eq!(shown.iter().map(|session| session.current).collect::<Vec<_>>(), [true, false]);
    let phone = &shown[1];
    assert_eq!((phone.device.as_ref(), phone.source.as_str()), (Some(&device), "127.0.0.1"));
    assert_eq!((phone.tenant_id.as_str(), &phone.methods[..]), (acme.id.as_str(), &["pwd".to_owned()][..]));
    assert!(
        phone.last_use_time.is_some() && phone.idle_expire_time.unwrap().seconds < phone.expire_time.unwrap().seconds
    );
}

async fn the_list_has_pages(t: &Bed) {
    let ann = t.person("ann").await;
    for _ in 0..2 {
        t.login(&ann, "").await;
    }
    let mut clients = t.with_token(&ann.token);
    let mut ask = v1::ListSessionsRequest { page_size: 2, ..Default::default() };
    let first = clients.auth.list_sessions(ask.clone()).await.expect("lists").into_inner();
    ask.page_token.clone_from(&first.next_page_token);
    let last = clients.auth.list_sessions(ask.clone()).await.expect("lists").into_inner();
    assert_eq!((first.sessions.len(), last.sessions.len(), last.next_page_token.as_str()), (2, 1, ""));
    let bob = t.person("bob").await;
    let others = t.with_token(&bob.token).auth.list_sessions(ask).await;
    assert_refused(others, Code::InvalidArgument, "PAGE_TOKEN_MISMATCH");
}

async fn after_a_logout_nothing_of_the_session_works(t: &Bed) {
    let ann = t.person("ann").await;
    let other = t.login(&ann, "").await;
    let request_id = request_id();
    t.with_token(&ann.token).auth.logout(v1::LogoutRequest { request_id }).await.expect("signs out");
    is_over(t, &ann).await;
    works(t, &other).await;
    assert_eq!(list(t, &other).await.len(), 1);
    for mut keys in [t.operator(), t.with_key(&t.service_key(&["*"]).await)] {
        let refused = keys.auth.logout(v1::LogoutRequest::default()).await;
        assert_refused(refused, Code::PermissionDenied, "CALLER_KIND_REFUSED");
    }
}

async fn a_revoked_session_ends_and_the_others_go_on(t: &Bed) {
    let ann = t.person("ann").await;
    let lost = t.login(&ann, "").await;
    let session_id = session_of(t, &lost).await.session_id;
    let revoke = v1::RevokeSessionRequest { session_id, request_id: request_id() };
    let mut clients = t.with_token(&ann.token);
    for _ in 0..2 {
        clients.auth.revoke_session(revoke.clone()).await.expect("ends it");
    }
    // Once more, by another call: it has ended, and that is all that was wanted.
    let again = v1::RevokeSessionRequest { request_id: request_id(), ..revoke };
    clients.auth.revoke_session(again).await.expect("has ended");
    is_over(t, &lost).await;
    works(t, &ann).await;
    next(t, &ann.refresh).await;
}

async fn nobody_ends_a_session_of_another(t: &Bed) {
    let (ann, bob) = (t.person("ann").await, t.person("bob").await);
    let theirs = session_of(t, &ann).await.session_id;
    let mut clients = t.with_token(&bob.token);
    for session_id in [theirs, request_id()] {
        let revoke = v1::RevokeSessionRequest { session_id, ..Default::default() };
        assert_refused(clients.auth.revoke_session(revoke).await, Code::NotFound, "SESSION_NOT_FOUND");
    }
    for session_id in ["", "x", "../x"] {
        let revoke = v1::RevokeSessionRequest { session_id: session_id.to_owned(), ..Default::default() };
        assert_eq!(wrong_fields(clients.auth.revoke_session(revoke).await), ["session_id"]);
    }
    works(t, &ann).await;
}

async fn all_sessions_end_or_all_but_this_one(t: &Bed) {
    let ann = t.person("ann").await;
    let (second, third) = (t.login(&ann, "").await, t.login(&ann, "").await);
    let all = |except_current| v1::RevokeAllSessionsRequest { except_current, ..Default::default() };
    let ended = t.with_token(&second.token).auth.revoke_all_sessions(all(true)).await.expect("ends them").into_inner();
    assert_eq!(ended.revoked, 2);
    is_over(t, &ann).await;
    is_over(t, &third).await;
    works(t, &second).await;
    let fourth = t.login(&ann, "").await;
    let ended = t.with_token(&second.token).auth.revoke_all_sessions(all(false)).await.expect("ends them").into_inner();
    assert_eq!(ended.revoked, 2);
    is_over(t, &second).await;
    is_over(t, &fourth).await;
    works(t, &t.login(&ann, "").await).await;
}

fn of_member(tenant: &Tenant, user: &Person) -> v1::ListMemberSessionsRequest {
    v1::ListMemberSessionsRequest { tenant: tenant.id.clone(), user_id: user.id.clone(), ..Default::default() }
}

fn end(tenant: &Tenant, user: &Person, session_id: &str) -> v1::RevokeMemberSessionsRequest {
    v1::RevokeMemberSessionsRequest {
        tenant: tenant.id.clone(),
        user_id: user.id.clone(),
        session_id: session_id.to_owned(),
        request_id: request_id(),
    }
}

async fn an_administrator_sees_the_sessions_that_are_at_work_in_the_tenant(t: &Bed) {
    let (acme, globex) = (t.tenant("acme").await, t.tenant("globex").await);
    let ann = t.member(&acme, "member").await;
    t.join(&globex, &ann, "member").await;
    t.login(&ann, &globex.id).await;
    let mine = session_of(t, &ann).await.session_id;
    let shown = t.with_token(&acme.owner.token).members.list_member_sessions(of_member(&acme, &ann)).await;
    let shown = shown.expect("lists").into_inner().sessions;
    assert_eq!(shown.iter().map(|s| (s.session_id.as_str(), s.current)).collect::<Vec<_>>(), [(mine.as_str(), false)]);
    let shown = t.operator().members.list_member_sessions(of_member(&globex, &ann)).await;
    assert_eq!(shown.expect("lists").into_inner().sessions.len(), 1);
    let stranger = t.person("stranger").await;
    let refused = t.with_token(&acme.owner.token).members.list_member_sessions(of_member(&acme, &stranger)).await;
    assert_refused(refused, Code::NotFound, "MEMBER_NOT_FOUND");
}

async fn what_an_administrator_ends_is_the_work_in_the_tenant(t: &Bed) {
    let (acme, globex) = (t.tenant("acme").await, t.tenant("globex").await);
    let ann = t.member(&acme, "member").await;
    t.join(&globex, &ann, "member").await;
    let elsewhere = t.login(&ann, &globex.id).await;
    t.with_token(&acme.owner.token).members.revoke_member_sessions(end(&acme, &ann, "")).await.expect("ends them");

    let refused = t.with_token(&ann.token).auth.who_am_i(v1::WhoAmIRequest {}).await;
    assert_refused(refused, Code::PermissionDenied, "SESSION_ENDED");
    // Refreshed or switched there, it is the same session.
    let to = |tenant: &Tenant| v1::SwitchTenantRequest { to_tenant: tenant.id.clone(), ..Default::default() };
    let switched = t.with_token(&elsewhere.token).auth.switch_tenant(to(&acme)).await;
    assert_refused(switched, Code::PermissionDenied, "SESSION_ENDED");
    let fresh = refresh(t, &ann.refresh).await.expect("refreshes").into_inner().access_token.unwrap().token;
    let refused = t.with_token(&fresh).auth.who_am_i(v1::WhoAmIRequest {}).await;
    assert_refused(refused, Code::PermissionDenied, "SESSION_ENDED");
    let asked = t.with_token(&fresh).auth.authorize(v1::AuthorizeRequest::default()).await.unwrap().into_inner();
    assert_eq!((asked.allowed, asked.reasons[0].reason.as_str()), (false, "SESSION_ENDED"));
    assert_eq!(asked.reasons[0].remedy(), v1::Remedy::SignIn);
    let service = t.service_key(&["*"]).await;
    let delegated = Headers::default().and("x-api-key", &service).and("x-on-behalf-of", &ann.token);
    let refused = Clients::new(t.channel(), delegated).auth.who_am_i(v1::WhoAmIRequest {}).await;
    assert_refused(refused, Code::PermissionDenied, "SESSION_ENDED");

    // In the other tenant all goes on.
    works(t, &elsewhere).await;
    let switched = t.with_token(&ann.token).auth.switch_tenant(to(&globex)).await.expect("switches").into_inner();
    works(t, &Person { token: switched.access_token.unwrap().token, ..ann.clone() }).await;
    // Whoever signs in again is back.
    let back = t.login(&ann, &acme.id).await;
    works(t, &back).await;
    let shown = t.with_token(&acme.owner.token).members.list_member_sessions(of_member(&acme, &ann)).await;
    let shown = shown.expect("lists").into_inner().sessions;
    assert_eq!(shown.len(), 1);
    assert_eq!(shown[0].session_id, session_of(t, &back).await.session_id);
    let rows = t.audit(&acme.id).await;
    let row = rows.iter().find(|row| row.action == "MembershipService/RevokeMemberSessions").expect("an audit row");
    assert_eq!((row.subject_id.unwrap().to_string(), row.changes.contains("all")), (ann.id.clone(), true));
}

async fn an_administrator_ends_one_session_of_a_member(t: &Bed) {
    let (acme, globex) = (t.tenant("acme").await, t.tenant("globex").await);
    let ann = t.member(&acme, "member").await;
    let second = t.login(&ann, &acme.id).await;
    t.join(&globex, &ann, "member").await;
    let elsewhere = session_of(t, &t.login(&ann, &globex.id).await).await.session_id;
    let of_owner = session_of(t, &acme.owner).await.session_id;
    let mut owner = t.with_token(&acme.owner.token);
    for absent in [elsewhere, of_owner, request_id()] {
        let refused = owner.members.revoke_member_sessions(end(&acme, &ann, &absent)).await;
        assert_refused(refused, Code::NotFound, "SESSION_NOT_FOUND");
    }
    let ended = session_of(t, &second).await.session_id;
    owner.members.revoke_member_sessions(end(&acme, &ann, &ended)).await.expect("ends it");
    let refused = t.with_token(&second.token).auth.who_am_i(v1::WhoAmIRequest {}).await;
    assert_refused(refused, Code::PermissionDenied, "SESSION_ENDED");
    works(t, &ann).await;
}

async fn nobody_sees_or_ends_sessions_of_a_higher_rank(t: &Bed) {
    let acme = t.tenant("acme").await;
    let admin = t.member(&acme, "admin").await;
    let mut clients = t.with_token(&admin.token);
    let refused = clients.members.list_member_sessions(of_member(&acme, &acme.owner)).await;
    assert_refused(refused, Code::PermissionDenied, "RANK_TOO_LOW");
    let refused = clients.members.revoke_member_sessions(end(&acme, &acme.owner, "")).await;
    assert_refused(refused, Code::PermissionDenied, "RANK_TOO_LOW");
    works(t, &acme.owner).await;
    let manager = t.member(&acme, "manager").await;
    let refused = t.with_token(&manager.token).members.list_member_sessions(of_member(&acme, &manager)).await;
    assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING");
}

async fn a_choice_of_the_tenant_is_kept_when_asked(t: &Bed) {
    let (acme, globex) = (t.tenant("acme").await, t.tenant("globex").await);
    t.join(&globex, &acme.owner, "viewer").await;
    for (keep_as_default, wanted) in [(false, &acme.id), (true, &globex.id)] {
        let to = v1::SwitchTenantRequest { to_tenant: globex.id.clone(), keep_as_default, ..Default::default() };
        t.with_token(&acme.owner.token).auth.switch_tenant(to).await.expect("switches");
        let again = t.login(&acme.owner, "").await;
        assert_eq!(&session_of(t, &again).await.tenant_id, wanted);
    }
}

async fn a_sign_in_on_an_unknown_device_is_told_by_mail(t: Bed) {
    let ann = t.person("ann").await;
    let sign_in = async |device_token: &str, name: &str| {
        let device = v1::Device { display_name: name.to_owned(), ..Default::default() };
        let asked = v1::LoginRequest {
            email: ann.email.clone(),
            password: PASSWORD.to_owned(),
            device_token: device_token.to_owned(),
            device: Some(device),
            ..Default::default()
        };
        t.anonymous().auth.login(asked).await.expect("signs in").into_inner().device_token
    };
    let known = sign_in("", "a laptop").await;
    sign_in(&known, "a laptop").await;
    sign_in("", "a phone").await;
    let mail = t.last_mail_to(&ann.email).await;
    assert!(mail.contains("A new sign-in") && mail.contains("a phone") && mail.contains("127.0.0.1"), "{mail}");
    // The same again on the same day is no news.
    sign_in("", "a phone").await;
    sign_in("", "a tablet").await;
    let mail = t.mail_to(&ann.email, "a tablet").await;
    assert!(mail.contains("A new sign-in"), "{mail}");
    assert_eq!(t.mails_to(&ann.email).len(), 2);
}

async fn a_token_is_told_about_to_services(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut service = t.with_key(&t.service_key(&["tokens.introspect"]).await);
    let session = session_of(t, &acme.owner).await.session_id;
    let ask = |token: &str| v1::IntrospectTokenRequest { token: token.to_owned() };
    for (token, kind) in [(&acme.owner.token, "access_token"), (&acme.owner.refresh, "refresh_token")] {
        let told = service.auth.introspect_token(ask(token)).await.expect("tells").into_inner();
        assert!(told.active && told.exp > told.auth_time && told.aal == 1, "{told:?}");
        assert_eq!((&told.sub, &told.sid, &told.tid), (&acme.owner.id, &session, &acme.id));
        assert_eq!((told.token_type.as_str(), &told.username), (kind, &acme.owner.email));
    }
    let successor = next(t, &acme.owner.refresh).await;
    let inactive = v1::IntrospectTokenResponse::default();
    let changed = acme.owner.token.replace('.', "x");
    for token in [&acme.owner.refresh, &changed, &t.operator_key, "", "eyJ", "tnr_"] {
        assert_eq!(service.auth.introspect_token(ask(token)).await.expect("tells").into_inner(), inactive, "{token}");
    }
    // Nothing was spent by it.
    assert!(service.auth.introspect_token(ask(&successor)).await.expect("tells").into_inner().active);
    let last = next(t, &successor).await;
    t.with_token(&acme.owner.token).auth.logout(v1::LogoutRequest::default()).await.expect("signs out");
    for token in [&acme.owner.token, &last] {
        assert_eq!(t.operator().auth.introspect_token(ask(token)).await.expect("tells").into_inner(), inactive);
    }
    let mut other = t.with_key(&t.service_key(&["usage.read"]).await);
    let refused = other.auth.introspect_token(ask(&last)).await;
    assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING");
}

async fn is_live(server: &Bed, person: &Person) -> bool {
    server.with_token(&person.token).auth.who_am_i(v1::WhoAmIRequest {}).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ended_on_one_server_is_refused_by_the_other() {
    let t = Bed::private(Engine::Postgres, &[]).await;
    let other = t.sibling(&[]).await;
    let acme = t.tenant("acme").await;
    for turn in 0..20 {
        let (ann, keeper) = (t.login(&acme.owner, "").await, t.login(&acme.owner, "").await);
        works(&other, &ann).await;
        let mut clients = if turn % 2 == 0 { t.with_token(&ann.token) } else { t.with_token(&keeper.token) };
        match turn % 4 {
            0 | 2 => drop(clients.auth.logout(v1::LogoutRequest::default()).await.expect("signs out")),
            1 => {
                let session_id = session_of(&t, &ann).await.session_id;
                let revoke = v1::RevokeSessionRequest { session_id, ..Default::default() };
                clients.auth.revoke_session(revoke).await.expect("ends it");
            }
            _ => {
                let all = v1::RevokeAllSessionsRequest { except_current: true, ..Default::default() };
                clients.auth.revoke_all_sessions(all).await.expect("ends them");
            }
        }
        is_over(&t, &ann).await;
        until("the other server has heard of it", async || !is_live(&other, &ann).await).await;
        for server in [&other, &t] {
            is_over(server, &ann).await;
            works(server, &keeper).await;
        }
    }
    let member = t.member(&acme, "member").await;
    let owner = t.login(&acme.owner, "").await;
    t.with_token(&owner.token).members.revoke_member_sessions(end(&acme, &member, "")).await.expect("ends them");
    until("the other server has heard of it", async || !is_live(&other, &member).await).await;
    let refused = other.with_token(&member.token).auth.who_am_i(v1::WhoAmIRequest {}).await;
    assert_refused(refused, Code::PermissionDenied, "SESSION_ENDED");
}
