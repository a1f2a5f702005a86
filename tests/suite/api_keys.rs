//! Keys of tenants and of their members: what they open, how long, and that nobody becomes more by them.

use chrono::TimeDelta;
use prost_types::Duration;
use tenantry::rpc::v1;
use tonic::Code;

use crate::harness::{Bed, Clients, Engine, Person, Tenant, assert_refused, on_both_engines, request_id, wrong_fields};

on_both_engines! {
    a_key_opens_its_tenant_and_no_other
    nobody_makes_a_key_that_may_do_more_than_they
    patterns_stand_for_what_their_maker_may_do_now
    what_a_key_may_not_be_is_named
    a_revoked_key_is_refused_at_the_next_call
    keys_of_closed_tenants_are_refused
    a_personal_key_is_never_stronger_than_the_member_now
    a_personal_key_dies_with_the_membership_also_when_they_come_back
    a_personal_key_ends_with_its_member_and_only_signed_in_people_have_some
    keys_do_not_get_at_credentials_or_ownership
    a_key_makes_nobody_more_than_it_may_itself
    an_admin_ends_a_members_key_and_nobody_else_does
    a_service_asks_about_a_key
    what_a_key_does_is_written_down_as_the_keys
    ;
    alone
    a_secret_is_shown_again_for_ten_minutes_and_never_makes_a_second_key
    two_secrets_are_good_while_a_rotation_overlaps
    a_key_ends_with_its_time
    who_answers_for_a_key_is_told_a_week_before_it_ends
    the_last_use_is_kept_to_the_minute
}

/// A key of the tenant's, made by somebody.
pub(crate) async fn create(t: &Bed, by: &Person, permissions: &[&str]) -> v1::CreateApiKeyResponse {
    t.with_token(&by.token).auth.create_api_key(wish(permissions)).await.expect("a key").into_inner()
}

/// A key of somebody's own.
pub(crate) async fn personal(t: &Bed, of: &Person, permissions: &[&str]) -> v1::CreatePersonalKeyResponse {
    let wish = v1::CreatePersonalKeyRequest {
        display_name: "mine".to_owned(),
        permissions: permissions.iter().map(|&p| p.to_owned()).collect(),
        ..Default::default()
    };
    t.with_token(&of.token).auth.create_personal_key(wish).await.expect("a key").into_inner()
}

fn wish(permissions: &[&str]) -> v1::CreateApiKeyRequest {
    v1::CreateApiKeyRequest {
        display_name: "nightly import".to_owned(),
        permissions: permissions.iter().map(|&p| p.to_owned()).collect(),
        ..Default::default()
    }
}

async fn who(clients: &mut Clients) -> Result<v1::WhoAmIResponse, tonic::Status> {
    clients.auth.who_am_i(v1::WhoAmIRequest {}).await.map(tonic::Response::into_inner)
}

async fn assert_dead(clients: &mut Clients) {
    let asked = clients.auth.who_am_i(v1::WhoAmIRequest {}).await;
    assert_refused(asked, Code::Unauthenticated, "CREDENTIAL_INVALID");
}

fn revoke(key: &v1::ApiKey) -> v1::RevokeApiKeyRequest {
    v1::RevokeApiKeyRequest { api_key_id: key.api_key_id.clone(), ..Default::default() }
}

async fn a_key_opens_its_tenant_and_no_other(t: &Bed) {
    let (acme, other) = (t.tenant("acme").await, t.tenant("other").await);
    let made = create(t, &acme.owner, &["members.read", "usage.read"]).await;
    let key = made.key.unwrap();
    assert!(made.secret.starts_with("tnk_") && made.secret.contains(&key.key_id) && made.secret.ends_with(&key.last4));
    assert_eq!((key.kind(), key.last4.len()), (v1::CallerKind::ApiKey, 4));
    assert_eq!(key.creator_id, acme.owner.id);
    let mut clients = t.with_key(&made.secret);
    let known = who(&mut clients).await.unwrap();
    assert_eq!(known.kind(), v1::CallerKind::ApiKey);
    assert_eq!((known.permissions, known.user), (key.permissions.clone(), None));
    assert_eq!(known.tenant.unwrap().tenant_id, acme.id);
    assert_eq!(known.api_key.unwrap().api_key_id, key.api_key_id);
    let list = v1::ListMembersRequest::default();
    assert_eq!(clients.members.list_members(list.clone()).await.unwrap().into_inner().members.len(), 1);
    t.with_token(&made.secret).members.list_members(list.clone()).await.expect("may, as a bearer");
    let get = v1::GetTenantRequest::default();
    assert_refused(clients.tenants.get_tenant(get).await, Code::PermissionDenied, "PERMISSION_MISSING");
    let elsewhere = v1::ListMembersRequest { tenant: other.id, ..list };
    assert_refused(clients.members.list_members(elsewhere).await, Code::InvalidArgument, "TENANT_CONFLICT");
    let mine = clients.tenants.list_my_tenants(v1::ListMyTenantsRequest::default()).await;
    assert_refused(mine, Code::PermissionDenied, "CALLER_KIND_REFUSED");
}

async fn nobody_makes_a_key_that_may_do_more_than_they(t: &Bed) {
    let acme = t.tenant("acme").await;
    let admin = t.member(&acme, "admin").await;
    let mut clients = t.with_token(&admin.token);
    let made = clients.auth.create_api_key(wish(&["tenant.read", "tenant.delete"])).await;
    assert_refused(made, Code::PermissionDenied, "KEY_TOO_STRONG");
    let made = clients.auth.create_api_key(wish(&["billing.manage"])).await;
    assert_refused(made, Code::PermissionDenied, "KEY_TOO_STRONG");
    clients.auth.create_api_key(wish(&["billing.read"])).await.expect("an admin may read bills");
    let manager = t.member(&acme, "manager").await;
    let made = t.with_token(&manager.token).auth.create_api_key(wish(&["tenant.read"])).await;
    assert_refused(made, Code::PermissionDenied, "PERMISSION_MISSING");
    // Whoever rotates a key holds it.
    let strong = create(t, &acme.owner, &["tenant.suspend"]).await.key.unwrap();
    let rotate = v1::RotateApiKeyRequest { api_key_id: strong.api_key_id, ..Default::default() };
    assert_refused(clients.auth.rotate_api_key(rotate.clone()).await, Code::PermissionDenied, "KEY_TOO_STRONG");
    t.with_token(&acme.owner.token).auth.rotate_api_key(rotate).await.expect("the owner may");
    // A service makes no stronger one than itself either, and in an owner's name none that is stronger than both.
    let key = t.service_key(&["keys.manage", "tenant.read"]).await;
    let in_acme = v1::CreateApiKeyRequest { tenant: acme.id.clone(), ..wish(&["members.read"]) };
    let made = t.with_key(&key).auth.create_api_key(in_acme.clone()).await;
    assert_refused(made, Code::PermissionDenied, "KEY_TOO_STRONG");
    let headers = crate::harness::Headers::default().and("x-api-key", &key).and("x-on-behalf-of", &acme.owner.token);
    let made = Clients::new(t.channel(), headers).auth.create_api_key(in_acme).await;
    assert_refused(made, Code::PermissionDenied, "KEY_TOO_STRONG");
}

async fn patterns_stand_for_what_their_maker_may_do_now(t: &Bed) {
    let acme = t.tenant("acme").await;
    let admin = t.member(&acme, "admin").await;
    let key = create(t, &admin, &["members.*", "billing.*"]).await.key.unwrap();
    assert_eq!(key.permissions, ["billing.read", "members.invite", "members.manage", "members.read"]);
    let all = create(t, &admin, &["*"]).await.key.unwrap();
    assert!(all.permissions.contains(&"tenant.update".to_owned()));
    assert!(all.permissions.iter().all(|p| p != "tenant.delete" && p != "*"), "{:?}", all.permissions);
    let made = t.with_token(&admin.token).auth.create_api_key(wish(&["ownership.*"])).await;
    assert_refused(made, Code::PermissionDenied, "KEY_TOO_STRONG");
    // An operator may do everything: of that, what members can have.
    let of_operator = v1::CreateApiKeyRequest { tenant: acme.id.clone(), ..wish(&["*"]) };
    let key = t.operator().auth.create_api_key(of_operator).await.unwrap().into_inner().key.unwrap();
    assert!(key.permissions.contains(&"tenant.delete".to_owned()));
    assert!(!key.permissions.contains(&"usage.correct".to_owned()));
}

async fn what_a_key_may_not_be_is_named(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut clients = t.with_token(&acme.owner.token);
    let asked = v1::CreateApiKeyRequest {
        request_id: "x".to_owned(),
        display_name: String::new(),
        permissions: vec!["Everything".to_owned()],
        ttl: Some(Duration { seconds: 0, nanos: 1 }),
        ..Default::default()
    };
    let wrong = wrong_fields(clients.auth.create_api_key(asked).await);
    assert_eq!(wrong, ["request_id", "display_name", "permissions", "ttl"]);
    for none in ["usage.correct", "castles.build", "castles.*"] {
        assert_eq!(wrong_fields(clients.auth.create_api_key(wish(&[none])).await), ["permissions"], "{none}");
    }
    let rotate = v1::RotateApiKeyRequest {
        api_key_id: "x".to_owned(),
        overlap: Some(Duration { seconds: 31 * 86_400, nanos: 0 }),
        ..Default::default()
    };
    assert_eq!(wrong_fields(clients.auth.rotate_api_key(rotate).await), ["api_key_id", "overlap"]);
    let key = create(t, &acme.owner, &["tenant.read"]).await.key.unwrap();
    let rename = v1::UpdateApiKeyRequest {
        api_key_id: key.api_key_id.clone(),
        display_name: "weekly import".to_owned(),
        etag: key.etag.clone(),
        ..Default::default()
    };
    let renamed = clients.auth.update_api_key(rename.clone()).await.unwrap().into_inner().key.unwrap();
    assert_eq!(renamed.display_name, "weekly import");
    assert_refused(clients.auth.update_api_key(rename).await, Code::Aborted, "ETAG_MISMATCH");
}

async fn a_revoked_key_is_refused_at_the_next_call(t: &Bed) {
    let acme = t.tenant("acme").await;
    let made = create(t, &acme.owner, &["tenant.read"]).await;
    let mine = personal(t, &acme.owner, &["*"]).await;
    let (mut program, mut own) = (t.with_key(&made.secret), t.with_key(&mine.secret));
    let sibling = if t.engine == Engine::Postgres { Some(t.sibling(&[]).await) } else { None };
    who(&mut program).await.expect("works");
    who(&mut own).await.expect("works");
    if let Some(sibling) = &sibling {
        who(&mut sibling.with_key(&made.secret)).await.expect("works there too");
    }
    let key = made.key.unwrap();
    let mut owner = t.with_token(&acme.owner.token);
    owner.auth.revoke_api_key(revoke(&key)).await.expect("revokes");
    assert_dead(&mut program).await;
    let mine = mine.key.unwrap();
    let request = v1::RevokePersonalKeyRequest { api_key_id: mine.api_key_id.clone(), ..Default::default() };
    owner.auth.revoke_personal_key(request.clone()).await.expect("revokes");
    assert_dead(&mut own).await;
    if let Some(sibling) = &sibling {
        assert_dead(&mut sibling.with_key(&made.secret)).await;
    }
    assert_refused(owner.auth.revoke_api_key(revoke(&key)).await, Code::NotFound, "KEY_NOT_FOUND");
    assert_refused(owner.auth.revoke_personal_key(request).await, Code::NotFound, "KEY_NOT_FOUND");
    let keys = owner.auth.list_api_keys(v1::ListApiKeysRequest::default()).await.unwrap().into_inner().keys;
    assert_eq!(keys, []);
}

async fn keys_of_closed_tenants_are_refused(t: &Bed) {
    let acme = t.tenant("acme").await;
    let made = create(t, &acme.owner, &["tenant.read", "members.read"]).await;
    let mine = personal(t, &acme.owner, &["*"]).await;
    let mut operator = t.operator();
    let suspend =
        v1::SuspendTenantRequest { tenant: acme.id.clone(), reason: "unpaid".to_owned(), ..Default::default() };
    operator.tenants.suspend_tenant(suspend).await.expect("suspends");
    for secret in [&made.secret, &mine.secret] {
        let list = t.with_key(secret).members.list_members(v1::ListMembersRequest::default()).await;
        assert_refused(list, Code::PermissionDenied, "TENANT_SUSPENDED");
    }
    let activate = v1::ActivateTenantRequest { tenant: acme.id.clone(), ..Default::default() };
    operator.tenants.activate_tenant(activate).await.expect("activates");
    let delete = v1::DeleteTenantRequest { tenant: acme.id.clone(), ..Default::default() };
    operator.tenants.delete_tenant(delete).await.expect("deletes");
    for secret in [&made.secret, &mine.secret] {
        let list = t.with_key(secret).members.list_members(v1::ListMembersRequest::default()).await;
        assert_refused(list, Code::PermissionDenied, "TENANT_DELETED");
    }
}

/// Attack 32 for keys of members: a weak key of somebody strong, a strong key of somebody weak, and of somebody who has
/// become weak.
async fn a_personal_key_is_never_stronger_than_the_member_now(t: &Bed) {
    let acme = t.tenant("acme").await;
    let weak_of_strong = personal(t, &acme.owner, &["members.read"]).await.secret;
    let viewer = t.member(&acme, "viewer").await;
    let strong_of_weak = personal(t, &viewer, &["*"]).await.secret;
    let invite = v1::AddMemberRequest { email: "nobody@example.com".to_owned(), ..Default::default() };
    for secret in [&weak_of_strong, &strong_of_weak] {
        let mut clients = t.with_key(secret);
        clients.members.list_members(v1::ListMembersRequest::default()).await.expect("both may");
        let added = clients.members.add_member(invite.clone()).await;
        assert_refused(added, Code::PermissionDenied, "PERMISSION_MISSING");
    }
    let admin = t.member(&acme, "admin").await;
    let mut clients = t.with_key(&personal(t, &admin, &["*"]).await.secret);
    let known = who(&mut clients).await.unwrap();
    assert_eq!((known.kind(), known.user.unwrap().user_id), (v1::CallerKind::PersonalKey, admin.id.clone()));
    assert!(known.permissions.contains(&"members.manage".to_owned()));
    let added = clients.members.add_member(invite.clone()).await;
    assert_refused(added, Code::NotFound, "USER_UNKNOWN");
    let demote = v1::UpdateMemberRoleRequest {
        user_id: admin.id.clone(),
        roles: vec!["viewer".to_owned()],
        ..Default::default()
    };
    t.with_token(&acme.owner.token).members.update_member_role(demote).await.expect("demotes");
    assert_refused(clients.members.add_member(invite).await, Code::PermissionDenied, "PERMISSION_MISSING");
    assert!(!who(&mut clients).await.unwrap().permissions.contains(&"members.manage".to_owned()));
}

/// Attack 42.
async fn a_personal_key_dies_with_the_membership_also_when_they_come_back(t: &Bed) {
    let acme = t.tenant("acme").await;
    let bob = t.member(&acme, "member").await;
    let made = personal(t, &bob, &["*"]).await;
    let mut clients = t.with_key(&made.secret);
    who(&mut clients).await.expect("works");
    let mut owner = t.with_token(&acme.owner.token);
    let suspend = v1::SuspendMemberRequest { user_id: bob.id.clone(), ..Default::default() };
    owner.members.suspend_member(suspend).await.expect("suspends");
    let list = clients.members.list_members(v1::ListMembersRequest::default()).await;
    assert_refused(list, Code::PermissionDenied, "MEMBER_SUSPENDED");
    let remove = v1::RemoveMemberRequest { user_id: bob.id.clone(), ..Default::default() };
    owner.members.remove_member(remove).await.expect("removes");
    assert_dead(&mut clients).await;
    t.join(&acme, &bob, "owner").await;
    assert_dead(&mut clients).await;
    let bob = t.login(&bob, &acme.id).await;
    let own = t.with_token(&bob.token).auth.list_personal_keys(v1::ListPersonalKeysRequest::default()).await;
    assert_eq!(own.unwrap().into_inner().keys, []);
    who(&mut t.with_key(&personal(t, &bob, &["*"]).await.secret)).await.expect("a new one works");
}

async fn a_personal_key_ends_with_its_member_and_only_signed_in_people_have_some(t: &Bed) {
    let acme = t.tenant("acme").await;
    let bob = t.member(&acme, "viewer").await;
    let made = personal(t, &bob, &["tenant.read"]).await;
    let key = made.key.unwrap();
    assert!(made.secret.starts_with("tnp_"));
    assert_eq!((key.kind(), key.user_id.as_str()), (v1::CallerKind::PersonalKey, bob.id.as_str()));
    let wish = v1::CreatePersonalKeyRequest {
        tenant: acme.id.clone(),
        display_name: "mine".to_owned(),
        permissions: vec!["*".to_owned()],
        ..Default::default()
    };
    let service = t.service_key(&["*"]).await;
    let headers = crate::harness::Headers::default().and("x-api-key", &service).and("x-on-behalf-of", &bob.token);
    let tenant_key = create(t, &acme.owner, &["*"]).await.secret;
    let others = [
        t.operator(),
        t.with_key(&service),
        Clients::new(t.channel(), headers),
        t.with_key(&made.secret),
        t.with_key(&tenant_key),
    ];
    for mut other in others {
        let made = other.auth.create_personal_key(wish.clone()).await;
        assert_refused(made, Code::PermissionDenied, "CALLER_KIND_REFUSED");
        let revoked = v1::RevokePersonalKeyRequest {
            tenant: acme.id.clone(),
            api_key_id: key.api_key_id.clone(),
            ..Default::default()
        };
        let revoked = other.auth.revoke_personal_key(revoked).await;
        assert_refused(revoked, Code::PermissionDenied, "CALLER_KIND_REFUSED");
    }
    let leave = v1::LeaveTenantRequest::default();
    t.with_token(&bob.token).members.leave_tenant(leave).await.expect("leaves");
    assert_dead(&mut t.with_key(&made.secret)).await;
}

async fn keys_do_not_get_at_credentials_or_ownership(t: &Bed) {
    let acme = t.tenant("acme").await;
    let bob = t.member(&acme, "admin").await;
    let made = create(t, &acme.owner, &["*"]).await;
    let mine = personal(t, &acme.owner, &["*"]).await;
    for secret in [&made.secret, &mine.secret] {
        let mut clients = t.with_key(secret);
        let created = clients.auth.create_api_key(wish(&["tenant.read"])).await;
        assert_refused(created, Code::PermissionDenied, "CALLER_KIND_REFUSED");
        let rotate = v1::RotateApiKeyRequest { api_key_id: made.key.clone().unwrap().api_key_id, ..Default::default() };
        assert_refused(clients.auth.rotate_api_key(rotate).await, Code::PermissionDenied, "CALLER_KIND_REFUSED");
        let transfer = v1::TransferOwnershipRequest { new_owner_id: bob.id.clone(), ..Default::default() };
        let transferred = clients.members.transfer_ownership(transfer).await;
        assert_refused(transferred, Code::PermissionDenied, "CALLER_KIND_REFUSED");
        let deleted = clients.tenants.delete_tenant(v1::DeleteTenantRequest::default()).await;
        assert_refused(deleted, Code::PermissionDenied, "CALLER_KIND_REFUSED");
        let left = clients.members.leave_tenant(v1::LeaveTenantRequest::default()).await;
        assert_refused(left, Code::PermissionDenied, "CALLER_KIND_REFUSED");
        clients.auth.list_api_keys(v1::ListApiKeysRequest::default()).await.expect("looking is no harm");
    }
}

/// The rank of a key is that of the highest role of which it may do everything.
async fn a_key_makes_nobody_more_than_it_may_itself(t: &Bed) {
    let acme = t.tenant("acme").await;
    let bob = t.person("bob").await;
    let add = |role: &str| v1::AddMemberRequest {
        email: bob.email.clone(),
        roles: vec![role.to_owned()],
        ..Default::default()
    };
    let admin = t.member(&acme, "admin").await;
    let mut of_admin = t.with_key(&create(t, &admin, &["*"]).await.secret);
    assert_refused(of_admin.members.add_member(add("owner")).await, Code::PermissionDenied, "RANK_TOO_LOW");
    let mut weak = t.with_key(&create(t, &acme.owner, &["members.invite"]).await.secret);
    assert_refused(weak.members.add_member(add("viewer")).await, Code::PermissionDenied, "RANK_TOO_LOW");
    let mut weak = t.with_key(&personal(t, &acme.owner, &["members.invite"]).await.secret);
    assert_refused(weak.members.add_member(add("viewer")).await, Code::PermissionDenied, "RANK_TOO_LOW");
    of_admin.members.add_member(add("admin")).await.expect("as an admin could");
}

async fn an_admin_ends_a_members_key_and_nobody_else_does(t: &Bed) {
    let (acme, other) = (t.tenant("acme").await, t.tenant("other").await);
    let (bob, cleo) = (t.member(&acme, "member").await, t.member(&acme, "member").await);
    let made = personal(t, &bob, &["*"]).await;
    let key = made.key.unwrap();
    let own = v1::RevokePersonalKeyRequest { api_key_id: key.api_key_id.clone(), ..Default::default() };
    let mut colleague = t.with_token(&cleo.token);
    assert_refused(colleague.auth.revoke_personal_key(own.clone()).await, Code::NotFound, "KEY_NOT_FOUND");
    let rotate = v1::RotatePersonalKeyRequest { api_key_id: key.api_key_id.clone(), ..Default::default() };
    assert_refused(colleague.auth.rotate_personal_key(rotate).await, Code::NotFound, "KEY_NOT_FOUND");
    let listed = colleague.auth.list_personal_keys(v1::ListPersonalKeysRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.keys, []);
    assert_refused(
        t.with_token(&other.owner.token).auth.revoke_api_key(revoke(&key)).await,
        Code::NotFound,
        "KEY_NOT_FOUND",
    );
    let mut owner = t.with_token(&acme.owner.token);
    // The tenant's own keys are rotated by admins; a member's secret is nobody else's to get.
    let rotate = v1::RotateApiKeyRequest { api_key_id: key.api_key_id.clone(), ..Default::default() };
    assert_refused(owner.auth.rotate_api_key(rotate).await, Code::NotFound, "KEY_NOT_FOUND");
    let all = owner.auth.list_api_keys(v1::ListApiKeysRequest::default()).await.unwrap().into_inner().keys;
    assert_eq!(all, std::slice::from_ref(&key));
    let own_only = v1::ListApiKeysRequest { own_only: true, ..Default::default() };
    assert_eq!(owner.auth.list_api_keys(own_only).await.unwrap().into_inner().keys, []);
    owner.auth.revoke_api_key(revoke(&key)).await.expect("an admin ends it");
    assert_dead(&mut t.with_key(&made.secret)).await;
}

async fn a_service_asks_about_a_key(t: &Bed) {
    let (acme, other) = (t.tenant("acme").await, t.tenant("other").await);
    let made = create(t, &acme.owner, &["members.read", "usage.write"]).await;
    let viewer = t.member(&acme, "viewer").await;
    let mine = personal(t, &viewer, &["*"]).await;
    let mut service = t.with_key(&t.service_key(&["usage.write"]).await);
    let ask = |key: &str, tenant: &Tenant, permission: &str| v1::AuthorizeRequest {
        tenant: tenant.id.clone(),
        subject_api_key: key.to_owned(),
        permissions: vec![permission.to_owned()],
        ..Default::default()
    };
    let reasons = |answer: v1::AuthorizeResponse| -> Vec<String> {
        assert_eq!(answer.allowed, answer.reasons.is_empty());
        answer.reasons.into_iter().map(|reason| reason.reason).collect()
    };
    let answer = service.auth.authorize(ask(&made.secret, &acme, "members.read")).await.unwrap().into_inner();
    assert_eq!(answer.api_key.as_ref().map(|key| &key.api_key_id), made.key.as_ref().map(|key| &key.api_key_id));
    assert!(answer.user.is_none() && reasons(answer).is_empty());
    let answer = service.auth.authorize(ask(&mine.secret, &acme, "members.manage")).await.unwrap().into_inner();
    assert_eq!(answer.user.as_ref().unwrap().user_id, viewer.id);
    assert_eq!(reasons(answer), ["PERMISSION_MISSING"]);
    let answer = service.auth.authorize(ask("tnk_nonsense", &acme, "members.read")).await.unwrap().into_inner();
    assert_eq!(reasons(answer), ["CREDENTIAL_INVALID"]);
    // A key of the platform is no subject.
    let platform = t.service_key(&["*"]).await;
    for key in [&platform, &t.operator_key] {
        let answer = service.auth.authorize(ask(key, &acme, "members.read")).await.unwrap().into_inner();
        assert_eq!(reasons(answer), ["CREDENTIAL_INVALID"]);
    }
    let elsewhere = service.auth.authorize(ask(&made.secret, &other, "members.read")).await;
    assert_refused(elsewhere, Code::InvalidArgument, "TENANT_CONFLICT");
    let both = v1::AuthorizeRequest { subject_token: viewer.token.clone(), ..ask(&made.secret, &acme, "members.read") };
    assert_eq!(wrong_fields(service.auth.authorize(both).await), ["subject_api_key"]);
    let own = t.with_token(&viewer.token).auth.authorize(ask(&mine.secret, &acme, "members.read")).await;
    assert_eq!(wrong_fields(own), ["subject_api_key"]);
    let consume = v1::AuthorizeRequest {
        amounts: crate::harness::amounts(&[("quizzes", 2)]),
        ack_level: v1::AckLevel::Durable.into(),
        ..ask(&made.secret, &acme, "usage.write")
    };
    let answer = service.auth.authorize(consume).await.unwrap().into_inner();
    assert_eq!((answer.allowed, answer.usage[0].used), (true, 2));
}

async fn what_a_key_does_is_written_down_as_the_keys(t: &Bed) {
    let acme = t.tenant("acme").await;
    let made = create(t, &acme.owner, &["tenant.update"]).await;
    let mine = personal(t, &acme.owner, &["*"]).await;
    let rename = |name: &str| v1::UpdateTenantRequest {
        update_mask: Some(prost_types::FieldMask { paths: vec!["display_name".to_owned()] }),
        display_name: name.to_owned(),
        ..Default::default()
    };
    t.with_key(&made.secret).tenants.update_tenant(rename("By the program")).await.expect("renames");
    t.with_key(&mine.secret).tenants.update_tenant(rename("By the owner's program")).await.expect("renames");
    let rows = t.audit(&acme.id).await;
    let of = |name: &str| rows.iter().find(|row| row.changes.contains(name)).expect("a row");
    let row = of("By the program");
    assert_eq!((row.actor_kind, row.on_behalf_of), (6, None));
    assert_eq!(row.actor_id.unwrap().to_string(), made.key.unwrap().api_key_id);
    let row = of("By the owner's program");
    assert_eq!(row.actor_kind, 7);
    assert_eq!(row.actor_id.unwrap().to_string(), mine.key.unwrap().api_key_id);
    assert_eq!(row.on_behalf_of.unwrap().to_string(), acme.owner.id);
    assert!(rows.iter().any(|row| row.action == "AuthService/CreateApiKey"));
    assert!(rows.iter().all(|row| !row.changes.contains(&made.secret) && !row.changes.contains(&mine.secret)));
}

/// Attack 36.
async fn a_secret_is_shown_again_for_ten_minutes_and_never_makes_a_second_key(t: Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    let asked = v1::CreateApiKeyRequest { request_id: request_id(), ..wish(&["tenant.read"]) };
    let first = owner.auth.create_api_key(asked.clone()).await.unwrap().into_inner();
    t.clock.advance(TimeDelta::minutes(1));
    let again = owner.auth.create_api_key(asked.clone()).await.unwrap().into_inner();
    assert_eq!(first, again);
    t.clock.advance(TimeDelta::minutes(10));
    let mut owner = t.with_token(&t.login(&acme.owner, &acme.id).await.token);
    let late = owner.auth.create_api_key(asked.clone()).await;
    assert_refused(late, Code::FailedPrecondition, "ANSWER_EXPIRED");
    let other = v1::CreateApiKeyRequest { display_name: "another".to_owned(), ..asked };
    assert_refused(owner.auth.create_api_key(other).await, Code::InvalidArgument, "REQUEST_ID_REUSED");
    let keys = owner.auth.list_api_keys(v1::ListApiKeysRequest::default()).await.unwrap().into_inner().keys;
    assert_eq!(keys, [first.key.unwrap()]);
}

async fn two_secrets_are_good_while_a_rotation_overlaps(t: Bed) {
    let acme = t.tenant("acme").await;
    let made = create(&t, &acme.owner, &["tenant.read"]).await;
    let key = made.key.unwrap();
    let mut owner = t.with_token(&acme.owner.token);
    let rotate = |seconds: Option<i64>| v1::RotateApiKeyRequest {
        api_key_id: key.api_key_id.clone(),
        overlap: seconds.map(|seconds| Duration { seconds, nanos: 0 }),
        ..Default::default()
    };
    let second = owner.auth.rotate_api_key(rotate(Some(120))).await.unwrap().into_inner();
    let now = second.key.unwrap();
    assert_ne!(second.secret, made.secret);
    assert_eq!((&now.api_key_id, &now.key_id), (&key.api_key_id, &key.key_id));
    assert!(now.old_secret_end_time.is_some() && second.secret.ends_with(&now.last4));
    for secret in [&made.secret, &second.secret] {
        who(&mut t.with_key(secret)).await.expect("both are good");
    }
    // One more: the oldest of three is over at once.
    let third = owner.auth.rotate_api_key(rotate(Some(120))).await.unwrap().into_inner();
    assert_dead(&mut t.with_key(&made.secret)).await;
    for secret in [&second.secret, &third.secret] {
        who(&mut t.with_key(secret)).await.expect("both are good");
    }
    t.clock.advance(TimeDelta::seconds(121));
    assert_dead(&mut t.with_key(&second.secret)).await;
    who(&mut t.with_key(&third.secret)).await.expect("the newest lives on");
    let fourth = owner.auth.rotate_api_key(rotate(Some(0))).await.unwrap().into_inner();
    assert_dead(&mut t.with_key(&third.secret)).await;
    let fifth = owner.auth.rotate_api_key(rotate(None)).await.unwrap().into_inner();
    owner.auth.revoke_api_key(revoke(&key)).await.expect("revokes");
    for secret in [&fourth.secret, &fifth.secret] {
        assert_dead(&mut t.with_key(secret)).await;
    }
    assert_refused(owner.auth.rotate_api_key(rotate(None)).await, Code::NotFound, "KEY_NOT_FOUND");
}

async fn a_key_ends_with_its_time(t: Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    let asked = v1::CreateApiKeyRequest { ttl: Some(Duration { seconds: 120, nanos: 0 }), ..wish(&["tenant.read"]) };
    let made = owner.auth.create_api_key(asked).await.unwrap().into_inner();
    let key = made.key.unwrap();
    assert_eq!(key.expire_time.unwrap().seconds - key.create_time.unwrap().seconds, 120);
    let mut program = t.with_key(&made.secret);
    t.clock.advance(TimeDelta::seconds(110));
    who(&mut program).await.expect("still good");
    t.clock.advance(TimeDelta::seconds(10));
    assert_dead(&mut program).await;
    let rotate = v1::RotateApiKeyRequest { api_key_id: key.api_key_id, ..Default::default() };
    let rotated = owner.auth.rotate_api_key(rotate).await;
    assert_refused(rotated, Code::FailedPrecondition, "WRONG_STATE");
}

async fn who_answers_for_a_key_is_told_a_week_before_it_ends(t: Bed) {
    let acme = t.tenant("acme").await;
    let (admin, gone) = (t.member(&acme, "admin").await, t.member(&acme, "admin").await);
    let for_days = |name: &str, days: i64| v1::CreateApiKeyRequest {
        display_name: name.to_owned(),
        ttl: Some(Duration { seconds: days * 24 * 60 * 60, nanos: 0 }),
        ..wish(&["members.read"])
    };
    let make = async |by: &Person, name: &str, days: i64| {
        let made = t.with_token(&by.token).auth.create_api_key(for_days(name, days)).await.expect("a key");
        made.into_inner().key.unwrap()
    };
    make(&admin, "import", 30).await;
    make(&admin, "short", 7).await;
    make(&gone, "of nobody", 30).await;
    let revoked = make(&admin, "revoked", 30).await;
    t.with_token(&admin.token).auth.revoke_api_key(revoke(&revoked)).await.expect("revokes");
    let mine = v1::CreatePersonalKeyRequest {
        display_name: "laptop".to_owned(),
        permissions: vec!["members.read".to_owned()],
        ttl: Some(Duration { seconds: 30 * 24 * 60 * 60, nanos: 0 }),
        ..Default::default()
    };
    t.with_token(&gone.token).auth.create_personal_key(mine).await.expect("a key");
    let remove = v1::RemoveMemberRequest { user_id: gone.id.clone(), ..Default::default() };
    t.with_token(&acme.owner.token).members.remove_member(remove).await.expect("removes");
    let told = |person: &Person| {
        let letters = t.mails_to(&person.email).into_iter();
        letters.filter(|mail| mail.contains("ends soon")).collect::<Vec<_>>()
    };
    t.clock.advance(TimeDelta::days(23) - TimeDelta::minutes(1));
    t.run_jobs().await;
    assert!(told(&admin).is_empty() && told(&acme.owner).is_empty());
    t.clock.advance(TimeDelta::minutes(2));
    t.mail_to(&admin.email, "ends soon").await;
    t.mail_to(&acme.owner.email, "ends soon").await;
    t.clock.advance(TimeDelta::days(8));
    t.run_jobs().await;
    let (admins, owners) = (told(&admin), told(&acme.owner));
    assert!(admins.len() == 1 && admins[0].contains("import"), "{admins:?}");
    assert!(owners.len() == 1 && owners[0].contains("of nobody"), "{owners:?}");
    assert!(told(&gone).is_empty());
}

async fn the_last_use_is_kept_to_the_minute(t: Bed) {
    let acme = t.tenant("acme").await;
    let made = create(&t, &acme.owner, &["tenant.read", "keys.manage"]).await;
    let service = t.service_key(&["tenant.read"]).await;
    assert!(made.key.as_ref().unwrap().last_use_time.is_none());
    for _ in 0..3 {
        who(&mut t.with_key(&made.secret)).await.expect("works");
        let get = v1::GetTenantRequest { tenant: acme.id.clone() };
        t.with_key(&service).tenants.get_tenant(get).await.expect("works");
    }
    let t = t.restart().await;
    let list = v1::ListApiKeysRequest::default();
    let keys = t.with_key(&made.secret).auth.list_api_keys(list).await.unwrap().into_inner().keys;
    let used = keys[0].last_use_time.expect("was used");
    assert_eq!((used.seconds % 60, used.nanos), (0, 0));
    assert_eq!(keys[0].etag, made.key.unwrap().etag, "a use is no change");
    let list = v1::ListPlatformKeysRequest { kind: v1::CallerKind::Service.into(), ..Default::default() };
    let keys = t.operator().auth.list_platform_keys(list).await.unwrap().into_inner().keys;
    assert!(keys[0].last_use_time.is_some());
    // Neither a row of the feed nor of the audit log is made of it.
    let rows = t.audit(&acme.id).await;
    assert_eq!(rows.iter().filter(|row| row.actor_kind == 6).count(), 0);
}
