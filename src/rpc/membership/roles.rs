//! Roles of a tenant, and what they may allow.

use tonic::Request;

use crate::app::mutation::etag;
use crate::app::roles::{NewRole, RoleChanges, RoleImpact, RoleView};
use crate::domain::catalogue::MOST_RANK;
use crate::domain::role::{OwnRole, Permissions, Rank, Roles, spell_out, words};
use crate::error::Error;
use crate::rpc::fields::Fields;
use crate::rpc::{Services, convert, v1};

/// What a mask may name.
const CHANGEABLE: [&str; 3] = ["rank", "permissions", "description"];

pub(super) async fn create_role(
    s: &Services,
    request: Request<v1::CreateRoleRequest>,
) -> Result<v1::CreateRoleResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let name = f.role_name("name", &m.name);
    let rank = rank(&mut f, m.rank);
    let permissions = permissions(&mut f, &m.permissions, &t.catalogue.definition.known_permissions());
    let description = f.text("description", &m.description, 200);
    let (Some(key), Some(name), Some(rank), Some(permissions), Some(description)) =
        (key, name, rank, permissions, description)
    else {
        return Err(f.refuse());
    };
    let new = NewRole { name, rank, permissions, description };
    let role = s.0.app.create_role(&t, new, m.validate_only, key).await?;
    Ok(v1::CreateRoleResponse { role: Some(own_role(&role)) })
}

pub(super) async fn update_role(
    s: &Services,
    request: Request<v1::UpdateRoleRequest>,
) -> Result<v1::UpdateRoleResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let name = f.role_name("name", &m.name);
    let paths = m.update_mask.as_ref().map(|mask| mask.paths.as_slice()).unwrap_or_default();
    let known = !paths.is_empty() && paths.iter().all(|path| path == "*" || CHANGEABLE.contains(&path.as_str()));
    f.read("update_mask", if known { Ok(()) } else { Err("must name some of rank, permissions, description, or *") });
    let named = |field: &str| paths.iter().any(|path| path == "*" || path == field);
    let mut changes = RoleChanges::default();
    if named("rank") {
        changes.rank = rank(&mut f, m.rank);
    }
    if named("permissions") {
        changes.permissions = permissions(&mut f, &m.permissions, &t.catalogue.definition.known_permissions());
    }
    if named("description") {
        changes.description = f.text("description", &m.description, 200);
    }
    let (Some(key), Some(name), true) = (key, name, f.is_clean()) else { return Err(f.refuse()) };
    let (role, impact) = s.0.app.update_role(&t, (&name, &changes), &m.etag, m.validate_only, key).await?;
    Ok(v1::UpdateRoleResponse { role: Some(own_role(&role)), impact: impact.as_ref().map(role_impact) })
}

pub(super) async fn delete_role(
    s: &Services,
    request: Request<v1::DeleteRoleRequest>,
) -> Result<v1::DeleteRoleResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let name = f.role_name("name", &m.name);
    let replacement = match m.replacement.as_str() {
        "" => Some(None),
        name => f.read("replacement", t.roles.parse(name)).map(|role| Some(role.name.clone())),
    };
    let (Some(key), Some(name), Some(replacement)) = (key, name, replacement) else { return Err(f.refuse()) };
    let named = (&name, replacement.as_ref());
    let impact = s.0.app.delete_role(&t, named, &m.etag, m.validate_only, key).await?;
    Ok(v1::DeleteRoleResponse { impact: m.validate_only.then(|| role_impact(&impact)) })
}

pub(super) async fn list_roles(
    s: &Services,
    request: Request<v1::ListRolesRequest>,
) -> Result<v1::ListRolesResponse, Error> {
    let (t, v1::ListRolesRequest { .. }) = s.0.enter(request).await?;
    let views = s.0.app.list_roles(&t).await?;
    Ok(v1::ListRolesResponse { roles: views.iter().map(|view| role(view, &t.roles)).collect() })
}

pub(super) async fn list_permissions(
    s: &Services,
    request: Request<v1::ListPermissionsRequest>,
) -> Result<v1::ListPermissionsResponse, Error> {
    let (t, v1::ListPermissionsRequest { .. }) = s.0.enter(request).await?;
    let definition = &t.catalogue.definition;
    let permission = |name: String| v1::Permission {
        description: match definition.permissions.get(&name) {
            Some(description) => description.clone(),
            None => words(&name).unwrap_or_default().to_owned(),
        },
        held: t.permissions.contains(&name),
        name,
    };
    let permissions = definition.known_permissions().names().into_iter().map(permission).collect();
    Ok(v1::ListPermissionsResponse { permissions })
}

fn rank(f: &mut Fields, rank: i64) -> Option<Rank> {
    let ok = (0..=MOST_RANK).contains(&rank);
    f.read("rank", if ok { Ok(Rank(rank)) } else { Err("must be 0 to 1000000") })
}

fn permissions(f: &mut Fields, names: &[String], known: &Permissions) -> Option<Permissions> {
    f.read("permissions", spell_out(names, known))
}

/// A role as a list shows it: as it counts, with the catalogue as it is now.
fn role(view: &RoleView, roles: &Roles) -> v1::Role {
    let role = &view.role;
    v1::Role {
        name: role.name.as_str().to_owned(),
        rank: role.rank.0,
        permissions: role.permissions.names(),
        own: role.own,
        top: role.name == roles.top().name,
        default: roles.default().is_some_and(|default| default.name == role.name),
        ..view.own.as_ref().map(own_role).unwrap_or_default()
    }
}

/// A role as it was just written.
fn own_role(role: &OwnRole) -> v1::Role {
    v1::Role {
        name: role.name.as_str().to_owned(),
        rank: role.rank.0,
        permissions: role.permissions.names(),
        description: role.description.clone(),
        own: true,
        top: false,
        default: false,
        create_time: Some(convert::time(role.created_at)),
        update_time: Some(convert::time(role.updated_at)),
        etag: etag(role.version),
    }
}

fn role_impact(impact: &RoleImpact) -> v1::RoleImpact {
    let named = impact.named.iter().map(|member| v1::MemberImpact {
        user: Some(convert::user(&member.user)),
        gained_permissions: member.gained.clone(),
        lost_permissions: member.lost.clone(),
    });
    v1::RoleImpact { members: impact.members, affected_members: impact.affected, named: named.collect() }
}
