//! Roles: several for one member, those that a tenant makes for itself, and what members are told of them.

use chrono::TimeDelta;
use prost_types::FieldMask;
use tenantry::rpc::v1;
use tonic::{Code, Response, Status};

use crate::harness::{
    Bed, CATALOGUE, Clients, Engine, Person, Tenant, assert_refused, on_both_engines, until, wrong_fields,
};

on_both_engines! {
    a_member_may_do_what_any_of_their_roles_allows
    the_last_owner_is_counted_with_other_roles_too
    a_role_of_ones_own_stands_among_the_others
    nobody_makes_a_role_beyond_themselves
    a_role_beyond_oneself_is_not_to_be_given
    a_role_that_changes_holds_with_the_next_call
    what_a_change_means_is_said_before
    a_role_goes_when_nobody_is_left_with_it
    a_role_is_one_tenants
    many_members_of_a_role_are_one_change
    last_activity_is_kept_to_the_minute;
    alone
    a_later_catalogue_does_not_collide
}

fn texts(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

fn new(name: &str, rank: i64, permissions: &[&str]) -> v1::CreateRoleRequest {
    v1::CreateRoleRequest { name: name.to_owned(), rank, permissions: texts(permissions), ..Default::default() }
}

fn permit(name: &str, permissions: &[&str]) -> v1::UpdateRoleRequest {
    v1::UpdateRoleRequest {
        name: name.to_owned(),
        permissions: texts(permissions),
        update_mask: Some(FieldMask { paths: texts(&["permissions"]) }),
        ..Default::default()
    }
}

fn give(user: &str, roles: &[&str]) -> v1::UpdateMemberRoleRequest {
    v1::UpdateMemberRoleRequest { user_id: user.to_owned(), roles: texts(roles), ..Default::default() }
}

async fn who(t: &Bed, person: &Person) -> v1::WhoAmIResponse {
    t.with_token(&person.token).auth.who_am_i(v1::WhoAmIRequest {}).await.unwrap().into_inner()
}

async fn roles(clients: &mut Clients) -> Vec<v1::Role> {
    clients.members.list_roles(v1::ListRolesRequest::default()).await.unwrap().into_inner().roles
}

async fn member(clients: &mut Clients, user: &str) -> v1::Member {
    let request = v1::GetMemberRequest { user_id: user.to_owned(), ..Default::default() };
    clients.members.get_member(request).await.unwrap().into_inner().member.unwrap()
}

async fn a_member_may_do_what_any_of_their_roles_allows(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    owner.members.create_role(new("accountant", 5, &["billing.manage", "billing.read"])).await.unwrap();
    let ann = t.member(&acme, "viewer").await;
    let both = owner.members.update_member_role(give(&ann.id, &["viewer", "accountant", "viewer"])).await.unwrap();
    assert_eq!(both.into_inner().member.unwrap().roles, ["accountant", "viewer"]);
    let me = who(t, &ann).await;
    assert_eq!(me.roles, ["accountant", "viewer"]);
    for held in ["billing.manage", "members.read"] {
        assert!(me.permissions.iter().any(|permission| permission == held), "{held}");
    }
    assert!(!me.permissions.iter().any(|permission| permission == "members.invite"));
    // The highest rank counts: a manager who is a viewer as well is above a member.
    let bob = t.member(&acme, "member").await;
    owner.members.update_member_role(give(&ann.id, &["viewer", "admin"])).await.unwrap();
    t.with_token(&ann.token).members.update_member_role(give(&bob.id, &["manager", "viewer"])).await.unwrap();
    let of_bob = t.with_token(&bob.token).members.update_member_role(give(&ann.id, &["viewer"])).await;
    assert_refused(of_bob, Code::PermissionDenied, "PERMISSION_MISSING");
    let mine = t.with_token(&bob.token).tenants.list_my_tenants(v1::ListMyTenantsRequest::default()).await.unwrap();
    assert_eq!(mine.into_inner().tenants[0].roles, ["manager", "viewer"]);
    let listed = owner.members.list_members(v1::ListMembersRequest::default()).await.unwrap().into_inner().members;
    let of_ann = listed.iter().find(|m| m.user.as_ref().unwrap().user_id == ann.id).unwrap();
    assert_eq!(of_ann.roles, ["admin", "viewer"]);
    for wrong in [vec![], texts(&["viewer", "king"]), vec!["viewer".to_owned(); 11]] {
        let wrong = v1::UpdateMemberRoleRequest { roles: wrong, ..give(&bob.id, &[]) };
        assert_eq!(wrong_fields(owner.members.update_member_role(wrong).await), ["roles"]);
    }
}

async fn the_last_owner_is_counted_with_other_roles_too(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    // Roles whose names sort before and after the top role's.
    owner.members.create_role(new("aide", 5, &[])).await.unwrap();
    owner.members.create_role(new("zealot", 6, &[])).await.unwrap();
    let me = acme.owner.id.as_str();
    owner.members.update_member_role(give(me, &["aide", "owner", "zealot"])).await.unwrap();
    for less in [&["aide"][..], &["aide", "zealot"], &["admin"]] {
        assert_refused(owner.members.update_member_role(give(me, less)).await, Code::FailedPrecondition, "LAST_OWNER");
    }
    let leave = owner.members.leave_tenant(v1::LeaveTenantRequest::default()).await;
    assert_refused(leave, Code::FailedPrecondition, "LAST_OWNER");
    let bob = t.member(&acme, "viewer").await;
    owner.members.update_member_role(give(&bob.id, &["viewer", "owner"])).await.unwrap();
    owner.members.update_member_role(give(me, &["aide", "admin"])).await.expect("bob is an owner");
    let bob_leaves = t.with_token(&bob.token).members.leave_tenant(v1::LeaveTenantRequest::default()).await;
    assert_refused(bob_leaves, Code::FailedPrecondition, "LAST_OWNER");
    // Whoever gives the tenant away keeps what else they are.
    let transfer = v1::TransferOwnershipRequest { new_owner_id: acme.owner.id.clone(), ..Default::default() };
    let done = t.with_token(&bob.token).members.transfer_ownership(transfer).await.unwrap().into_inner();
    assert_eq!(done.new_owner.unwrap().roles, ["owner"]);
    assert_eq!(done.previous_owner.unwrap().roles, ["viewer"]);
}

async fn a_role_of_ones_own_stands_among_the_others(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    let asked =
        v1::CreateRoleRequest { description: "Looks after seats".to_owned(), ..new("host", 25, &["members.*"]) };
    let made = owner.members.create_role(asked).await.unwrap().into_inner().role.unwrap();
    assert_eq!((made.own, made.top, made.default, made.rank), (true, false, false, 25));
    assert_eq!(made.permissions, ["members.invite", "members.manage", "members.read"], "patterns are spelt out");
    let all = roles(&mut owner).await;
    let names: Vec<&str> = all.iter().map(|role| role.name.as_str()).collect();
    assert_eq!(names, ["owner", "admin", "manager", "host", "member", "viewer"]);
    assert_eq!(all[3], made);
    assert!(all[0].top && !all[0].own && all[0].etag.is_empty() && all[4].default);
    for (name, reason) in [("host", "ROLE_TAKEN"), ("viewer", "ROLE_TAKEN")] {
        assert_refused(owner.members.create_role(new(name, 1, &[])).await, Code::AlreadyExists, reason);
    }
    for (request, field) in [
        (new("Host", 1, &[]), "name"),
        (new("", 1, &[]), "name"),
        (new("a", -1, &[]), "rank"),
        (new("a", 1_000_001, &[]), "rank"),
        (new("a", 50, &[]), "rank"),
        (new("a", 1, &["members.eat"]), "permissions"),
        (new("a", 1, &["usage.correct"]), "permissions"),
    ] {
        assert_eq!(wrong_fields(owner.members.create_role(request).await), [field]);
    }
    let nothing = v1::UpdateRoleRequest { update_mask: None, ..permit("host", &[]) };
    assert_eq!(wrong_fields(owner.members.update_role(nothing).await), ["update_mask"]);
    assert_refused(owner.members.update_role(permit("admin", &[])).await, Code::FailedPrecondition, "WRONG_STATE");
    assert_refused(owner.members.update_role(permit("nobody", &[])).await, Code::NotFound, "ROLE_NOT_FOUND");
    let stale = v1::UpdateRoleRequest { etag: "\"v9\"".to_owned(), ..permit("host", &[]) };
    assert_refused(owner.members.update_role(stale).await, Code::Aborted, "ETAG_MISMATCH");
    let tried = v1::CreateRoleRequest { validate_only: true, ..new("guest", 1, &[]) };
    assert_eq!(owner.members.create_role(tried).await.unwrap().into_inner().role.unwrap().name, "guest");
    assert_eq!(roles(&mut owner).await, all, "nothing was made");
    let listed = owner.members.list_permissions(v1::ListPermissionsRequest::default()).await.unwrap();
    let listed = listed.into_inner().permissions;
    assert!(listed.iter().all(|permission| permission.held && !permission.description.is_empty()));
    let mut viewer = t.with_token(&t.member(&acme, "viewer").await.token);
    let seen = viewer.members.list_permissions(v1::ListPermissionsRequest::default()).await.unwrap().into_inner();
    assert_eq!(seen.permissions.len(), listed.len());
    assert!(seen.permissions.iter().any(|permission| permission.name == "members.manage" && !permission.held));
}

async fn nobody_makes_a_role_beyond_themselves(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    let mut admin = t.with_token(&t.member(&acme, "admin").await.token);
    let mut viewer = t.with_token(&t.member(&acme, "viewer").await.token);
    assert_refused(viewer.members.create_role(new("a", 1, &[])).await, Code::PermissionDenied, "PERMISSION_MISSING");
    assert_refused(admin.members.create_role(new("a", 41, &[])).await, Code::PermissionDenied, "RANK_TOO_LOW");
    let above = admin.members.create_role(new("a", 1, &["tenant.delete"])).await;
    assert_refused(above, Code::PermissionDenied, "PERMISSION_MISSING");
    let tried = v1::CreateRoleRequest { validate_only: true, ..new("a", 1, &["*"]) };
    assert_refused(admin.members.create_role(tried).await, Code::PermissionDenied, "PERMISSION_MISSING");
    admin.members.create_role(new("helper", 40, &["members.manage"])).await.expect("up to one's own rank");
    let more = admin.members.update_role(permit("helper", &["tenant.delete"])).await;
    assert_refused(more, Code::PermissionDenied, "PERMISSION_MISSING");
    let up = v1::UpdateRoleRequest {
        name: "helper".to_owned(),
        rank: 45,
        update_mask: Some(FieldMask { paths: texts(&["rank"]) }),
        ..Default::default()
    };
    assert_refused(admin.members.update_role(up.clone()).await, Code::PermissionDenied, "RANK_TOO_LOW");
    // What an owner made above them, or with more than they may do, admins leave alone.
    owner.members.update_role(up).await.unwrap();
    let down = permit("helper", &[]);
    assert_refused(admin.members.update_role(down.clone()).await, Code::PermissionDenied, "RANK_TOO_LOW");
    owner.members.create_role(new("treasurer", 5, &["billing.manage"])).await.unwrap();
    let less = permit("treasurer", &[]);
    assert_refused(admin.members.update_role(less).await, Code::PermissionDenied, "PERMISSION_MISSING");
    let delete = v1::DeleteRoleRequest { name: "treasurer".to_owned(), ..Default::default() };
    assert_refused(admin.members.delete_role(delete).await, Code::PermissionDenied, "PERMISSION_MISSING");
}

async fn a_role_beyond_oneself_is_not_to_be_given(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    owner.members.create_role(new("treasurer", 5, &["billing.manage"])).await.unwrap();
    let admin = t.member(&acme, "admin").await;
    let mut clients = t.with_token(&admin.token);
    // Its rank is low, but it allows what an admin may not do: not for others, and not for themselves.
    let cleo = t.person("cleo").await;
    let add = v1::AddMemberRequest { email: cleo.email, roles: texts(&["treasurer"]), ..Default::default() };
    assert_refused(clients.members.add_member(add).await, Code::PermissionDenied, "PERMISSION_MISSING");
    let own = clients.members.update_member_role(give(&admin.id, &["admin", "treasurer"])).await;
    assert_refused(own, Code::PermissionDenied, "PERMISSION_MISSING");
    // Whoever has it keeps it when an admin gives them more besides.
    let dan = t.member(&acme, "viewer").await;
    owner.members.update_member_role(give(&dan.id, &["viewer", "treasurer"])).await.unwrap();
    clients.members.update_member_role(give(&dan.id, &["member", "treasurer"])).await.unwrap();
    // A service ranks by the catalogue's roles, whatever tenants make for themselves.
    let mut service = t.with_key(
        &t.service_key(&["members.*", "roles.*", "tenant.read", "features.read", "limits.read", "usage.read"]).await,
    );
    let add = |role: &str, email: String| v1::AddMemberRequest {
        tenant: acme.id.clone(),
        email,
        roles: texts(&[role]),
        ..Default::default()
    };
    service.members.add_member(add("viewer", t.person("eve").await.email)).await.expect("it holds what viewers do");
    let above = service.members.add_member(add("treasurer", t.person("fay").await.email)).await;
    assert_refused(above, Code::PermissionDenied, "PERMISSION_MISSING");
}

async fn a_role_that_changes_holds_with_the_next_call(t: &Bed) {
    let second = if t.engine == Engine::Postgres { Some(t.sibling(&[]).await) } else { None };
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    owner.members.create_role(new("host", 25, &["members.read"])).await.unwrap();
    let ann = t.member(&acme, "viewer").await;
    owner.members.update_member_role(give(&ann.id, &["host"])).await.unwrap();
    let invites = async |server: &Bed| {
        let me = who(server, &ann).await;
        me.permissions.iter().any(|permission| permission == "members.invite")
    };
    for _ in 0..5 {
        for (permissions, may) in [(&["members.read", "members.invite"][..], true), (&["members.read"], false)] {
            owner.members.update_role(permit("host", permissions)).await.unwrap();
            for (number, server) in [Some(t), second.as_ref()].into_iter().flatten().enumerate() {
                // The other server has to hear of it first.
                until("the other server knows", async || number == 0 || invites(server).await == may).await;
                assert_eq!(invites(server).await, may);
                let asked = v1::AuthorizeRequest { permissions: texts(&["members.invite"]), ..Default::default() };
                let told = server.with_token(&ann.token).auth.authorize(asked).await.unwrap().into_inner();
                assert_eq!(told.allowed, may);
            }
        }
    }
    if let Some(second) = second {
        second.stop().await;
    }
}

async fn what_a_change_means_is_said_before(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    owner.members.create_role(new("host", 25, &["members.read", "members.invite"])).await.unwrap();
    let (ann, bob) = (t.member(&acme, "viewer").await, t.member(&acme, "viewer").await);
    owner.members.update_member_role(give(&ann.id, &["host"])).await.unwrap();
    // Bob may invite by another role: he loses nothing.
    owner.members.update_member_role(give(&bob.id, &["host", "manager"])).await.unwrap();
    let tried = v1::UpdateRoleRequest { validate_only: true, ..permit("host", &["members.read", "usage.read"]) };
    let told = owner.members.update_role(tried).await.unwrap().into_inner();
    assert_eq!(told.role.unwrap().permissions, ["members.read", "usage.read"]);
    let impact = told.impact.unwrap();
    assert_eq!((impact.members, impact.affected_members, impact.named.len()), (2, 1, 1));
    let of_ann = &impact.named[0];
    assert_eq!(of_ann.user.as_ref().unwrap().user_id, ann.id);
    assert_eq!(
        (&of_ann.gained_permissions[..], &of_ann.lost_permissions[..]),
        (&texts(&["usage.read"])[..], &texts(&["members.invite"])[..])
    );
    assert!(who(t, &ann).await.permissions.contains(&"members.invite".to_owned()), "nothing changed");
    let delete = v1::DeleteRoleRequest {
        name: "host".to_owned(),
        replacement: "viewer".to_owned(),
        validate_only: true,
        ..Default::default()
    };
    let impact = owner.members.delete_role(delete).await.unwrap().into_inner().impact.unwrap();
    assert_eq!((impact.members, impact.affected_members), (2, 1));
    assert_eq!(impact.named[0].lost_permissions, ["members.invite"]);
    assert!(impact.named[0].gained_permissions.contains(&"usage.read".to_owned()));
}

async fn a_role_goes_when_nobody_is_left_with_it(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    owner.members.create_role(new("host", 25, &["members.read"])).await.unwrap();
    owner.members.create_role(new("guide", 26, &["members.read"])).await.unwrap();
    let people = [&["host"][..], &["host", "viewer"], &["guide", "host"], &["host", "owner"], &["guide"]];
    let mut members = Vec::new();
    for roles in people {
        let person = t.member(&acme, "viewer").await;
        owner.members.update_member_role(give(&person.id, roles)).await.unwrap();
        members.push(person);
    }
    let before = member(&mut owner, &members[1].id).await;
    let delete = |replacement: &str| v1::DeleteRoleRequest {
        name: "host".to_owned(),
        replacement: replacement.to_owned(),
        ..Default::default()
    };
    assert_refused(owner.members.delete_role(delete("")).await, Code::FailedPrecondition, "ROLE_IN_USE");
    for wrong in ["host", "owner", "king"] {
        assert_eq!(wrong_fields(owner.members.delete_role(delete(wrong)).await), ["replacement"]);
    }
    owner.members.delete_role(delete("guide")).await.unwrap();
    let expected = [&["guide"][..], &["guide", "viewer"], &["guide"], &["guide", "owner"], &["guide"]];
    for (person, roles) in members.iter().zip(expected) {
        assert_eq!(member(&mut owner, &person.id).await.roles, roles);
        assert_eq!(who(t, person).await.roles, roles);
    }
    assert_ne!(member(&mut owner, &members[1].id).await.etag, before.etag, "who read it before is told");
    assert!(roles(&mut owner).await.iter().all(|role| role.name != "host"));
    assert_refused(owner.members.delete_role(delete("guide")).await, Code::NotFound, "ROLE_NOT_FOUND");
    // Nor does it go while people join at it by themselves.
    let joins = v1::UpdateSettingsRequest {
        settings: Some(v1::Settings {
            auto_join: Some(v1::AutoJoin { enabled: None, role: "guide".to_owned() }),
            ..Default::default()
        }),
        ..Default::default()
    };
    owner.tenants.update_settings(joins).await.unwrap();
    let named =
        v1::DeleteRoleRequest { name: "guide".to_owned(), replacement: "viewer".to_owned(), ..Default::default() };
    assert_refused(owner.members.delete_role(named).await, Code::FailedPrecondition, "ROLE_IN_USE");
}

async fn a_role_is_one_tenants(t: &Bed) {
    let (acme, globex) = (t.tenant("acme").await, t.tenant("globex").await);
    let (mut of_acme, mut of_globex) = (t.with_token(&acme.owner.token), t.with_token(&globex.owner.token));
    of_acme.members.create_role(new("host", 25, &["members.invite"])).await.unwrap();
    assert!(roles(&mut of_globex).await.iter().all(|role| !role.own));
    let bob = t.member(&globex, "viewer").await;
    assert_eq!(wrong_fields(of_globex.members.update_member_role(give(&bob.id, &["host"])).await), ["roles"]);
    // The same name may mean another thing there.
    of_globex.members.create_role(new("host", 5, &[])).await.unwrap();
    assert_eq!(roles(&mut of_acme).await.iter().find(|role| role.own).unwrap().rank, 25);
    assert_eq!(roles(&mut of_globex).await.iter().find(|role| role.own).unwrap().rank, 5);
}

async fn many_members_of_a_role_are_one_change(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    owner.members.create_role(new("host", 25, &["members.read"])).await.unwrap();
    for _ in 0..5 {
        let person = t.member(&acme, "viewer").await;
        owner.members.update_member_role(give(&person.id, &["host"])).await.unwrap();
    }
    let feed = async || {
        let sql = "select kind from change where tenant_id = $1 order by seq, ord";
        match t.engine {
            Engine::Sqlite => t.rows::<(i64,)>(sql, &acme.id).await.into_iter().map(|row| row.0).collect::<Vec<_>>(),
            Engine::Postgres => t.rows::<(i16,)>(sql, &acme.id).await.into_iter().map(|row| row.0.into()).collect(),
        }
    };
    let before = feed().await.len();
    owner.members.update_role(permit("host", &["members.read", "members.invite"])).await.unwrap();
    assert_eq!(feed().await[before..], [45]);
}

async fn last_activity_is_kept_to_the_minute(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    let person = t.person("ann").await;
    t.join(&acme, &person, "viewer").await;
    t.run_jobs().await;
    assert!(member(&mut owner, &person.id).await.last_active_time.is_none(), "she has not been here");
    let ann = t.login(&person, &acme.id).await;
    who(t, &ann).await;
    t.run_jobs().await;
    let read = member(&mut owner, &person.id).await;
    let at = read.last_active_time.unwrap();
    assert_eq!((at.seconds % 60, at.nanos), (0, 0));
    assert_eq!(read.etag, "\"v1\"", "nobody's etag is stale by it");
    let rows = async || -> (i64, i64) {
        let audit: Vec<(i64,)> = t.rows("select count(*) from audit_event where tenant_id = $1", &acme.id).await;
        let feed: Vec<(i64,)> = t.rows("select count(*) from change where tenant_id = $1", &acme.id).await;
        (audit[0].0, feed[0].0)
    };
    let before = rows().await;
    who(t, &ann).await;
    t.run_jobs().await;
    assert_eq!(rows().await, before, "no rows of the log or the feed");
}

/// The catalogue of the tests with other roles.
fn with_roles(roles: &str) -> String {
    format!("{CATALOGUE}{roles}")
}

async fn apply(t: &Bed, toml: String) -> Result<Response<v1::ApplyCatalogueResponse>, Status> {
    let request = v1::ApplyCatalogueRequest { toml, ..Default::default() };
    t.operator().tenants.apply_catalogue(request).await
}

async fn a_later_catalogue_does_not_collide(t: Bed) {
    let base = "
[permissions]
\"quizzes.mark\" = \"Marks quizzes\"
\"quizzes.write\" = \"Writes quizzes\"
[roles.owner]
rank = 50
permissions = [\"*\"]
[roles.viewer]
rank = 10
permissions = [\"*.read\", \"members.read\", \"tenant.read\", \"roles.read\"]
"
    .replace("\"*.read\", ", "");
    apply(&t, with_roles(&base)).await.unwrap();
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    owner.members.create_role(new("marker", 40, &["quizzes.*", "tenant.read"])).await.unwrap();
    let ann = t.member(&acme, "viewer").await;
    owner.members.update_member_role(give(&ann.id, &["marker"])).await.unwrap();
    // A role of the same name, another permission under the pattern, one that is gone, and a top that is lower now.
    let later = "
[permissions]
\"quizzes.mark\" = \"Marks quizzes\"
\"quizzes.delete\" = \"Deletes quizzes\"
[roles.owner]
rank = 30
permissions = [\"*\"]
[roles.marker]
rank = 20
permissions = [\"members.manage\"]
[roles.viewer]
rank = 10
permissions = [\"members.read\", \"tenant.read\", \"roles.read\"]
";
    t.clock.advance(TimeDelta::seconds(1));
    apply(&t, with_roles(later)).await.expect("tenants' own roles are no obstacle");
    let me = who(&t, &ann).await;
    assert_eq!((me.roles, me.permissions), (texts(&["marker"]), texts(&["quizzes.mark", "tenant.read"])));
    let all = roles(&mut owner).await;
    let seen: Vec<(&str, i64, bool)> = all.iter().map(|role| (role.name.as_str(), role.rank, role.own)).collect();
    assert_eq!(seen, [("owner", 30, false), ("marker", 29, true), ("viewer", 10, false)]);
    // Without the own one, the catalogue's is to be had.
    let delete =
        v1::DeleteRoleRequest { name: "marker".to_owned(), replacement: "viewer".to_owned(), ..Default::default() };
    owner.members.delete_role(delete).await.unwrap();
    owner.members.update_member_role(give(&ann.id, &["marker"])).await.unwrap();
    assert_eq!(who(&t, &ann).await.permissions, ["members.manage"]);
    // But no name that tenants use comes to mean the top.
    let globex: Tenant = t.tenant("globex").await;
    t.with_token(&globex.owner.token).members.create_role(new("boss", 5, &[])).await.unwrap();
    let boss = later.replace("[roles.owner]", "[roles.boss]\nrank = 35\npermissions = [\"*\"]\n[roles.owner]");
    assert_refused(apply(&t, with_roles(&boss)).await, Code::InvalidArgument, "FIELDS_INVALID");
}
