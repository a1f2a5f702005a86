//! Members: joining, roles, suspension, leaving, ownership.

use tonic::Request;

use crate::domain::membership::MemberStatus;
use crate::domain::name::Email;
use crate::error::Error;
use crate::rpc::fields::Fields;
use crate::rpc::page::Page;
use crate::rpc::{Services, convert, v1};

pub(super) async fn add_member(
    s: &Services,
    request: Request<v1::AddMemberRequest>,
) -> Result<v1::AddMemberResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let email = f.read("email", Email::parse(&m.email));
    let roles = f.roles("roles", &m.roles, &t.roles, t.roles.default());
    let (Some(key), Some(email), Some(roles)) = (key, email, roles) else { return Err(f.refuse()) };
    let member = s.0.app.add_member(&t, &email, roles, key).await?;
    Ok(v1::AddMemberResponse { member: Some(convert::member(&member)) })
}

pub(super) async fn get_member(
    s: &Services,
    request: Request<v1::GetMemberRequest>,
) -> Result<v1::GetMemberResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let Some(user) = f.user_id("user_id", &m.user_id) else { return Err(f.refuse()) };
    let member = s.0.app.get_member(&t, user).await?;
    Ok(v1::GetMemberResponse { member: Some(convert::member(&member)) })
}

pub(super) async fn list_members(
    s: &Services,
    request: Request<v1::ListMembersRequest>,
) -> Result<v1::ListMembersResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let status = match v1::MemberStatus::try_from(m.status) {
        Ok(v1::MemberStatus::Unspecified) => None,
        Ok(v1::MemberStatus::Active) => Some(MemberStatus::Active),
        Ok(v1::MemberStatus::Suspended) => Some(MemberStatus::Suspended),
        Ok(v1::MemberStatus::Removed) | Err(_) => {
            return Err(Error::field("status", "must be MEMBER_STATUS_ACTIVE or MEMBER_STATUS_SUSPENDED"));
        }
    };
    let filter = v1::ListMembersRequest { status: m.status, ..v1::ListMembersRequest::default() };
    let master = &s.0.app.master;
    let page = Page::read(master, &t.ctx, Some(&t), (m.page_size, &m.page_token), &filter)?;
    let mut members = s.0.app.list_members(&t, status, page.span()).await?;
    let next_page_token = page.cut(master, &mut members, |member| member.membership.membership_id.0);
    Ok(v1::ListMembersResponse { members: members.iter().map(convert::member).collect(), next_page_token })
}

pub(super) async fn update_member_role(
    s: &Services,
    request: Request<v1::UpdateMemberRoleRequest>,
) -> Result<v1::UpdateMemberRoleResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let user = f.user_id("user_id", &m.user_id);
    let roles = f.roles("roles", &m.roles, &t.roles, None);
    let (Some(key), Some(user), Some(roles)) = (key, user, roles) else { return Err(f.refuse()) };
    let member = s.0.app.update_member_role(&t, user, roles, &m.etag, key).await?;
    Ok(v1::UpdateMemberRoleResponse { member: Some(convert::member(&member)) })
}

pub(super) async fn suspend_member(
    s: &Services,
    request: Request<v1::SuspendMemberRequest>,
) -> Result<v1::SuspendMemberResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let (Some(key), Some(user)) = (key, f.user_id("user_id", &m.user_id)) else { return Err(f.refuse()) };
    let member = s.0.app.suspend_member(&t, user, key).await?;
    Ok(v1::SuspendMemberResponse { member: Some(convert::member(&member)) })
}

pub(super) async fn reactivate_member(
    s: &Services,
    request: Request<v1::ReactivateMemberRequest>,
) -> Result<v1::ReactivateMemberResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let (Some(key), Some(user)) = (key, f.user_id("user_id", &m.user_id)) else { return Err(f.refuse()) };
    let member = s.0.app.reactivate_member(&t, user, key).await?;
    Ok(v1::ReactivateMemberResponse { member: Some(convert::member(&member)) })
}

pub(super) async fn remove_member(
    s: &Services,
    request: Request<v1::RemoveMemberRequest>,
) -> Result<v1::RemoveMemberResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let (Some(key), Some(user)) = (key, f.user_id("user_id", &m.user_id)) else { return Err(f.refuse()) };
    let member = s.0.app.remove_member(&t, user, &m.etag, key).await?;
    Ok(v1::RemoveMemberResponse { member: Some(convert::member(&member)) })
}

pub(super) async fn leave_tenant(
    s: &Services,
    request: Request<v1::LeaveTenantRequest>,
) -> Result<v1::LeaveTenantResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let Some(key) = f.request_key(&m.request_id, &m, &s.0.app.master) else { return Err(f.refuse()) };
    s.0.app.leave_tenant(&t, key).await?;
    Ok(v1::LeaveTenantResponse {})
}

pub(super) async fn transfer_ownership(
    s: &Services,
    request: Request<v1::TransferOwnershipRequest>,
) -> Result<v1::TransferOwnershipResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let user = f.user_id("new_owner_id", &m.new_owner_id);
    let own_roles = match m.own_roles.as_slice() {
        [] => Some(None),
        names => f.roles("own_roles", names, &t.roles, None).map(Some),
    };
    let (Some(key), Some(user), Some(own_roles)) = (key, user, own_roles) else { return Err(f.refuse()) };
    let (owner, previous) = s.0.app.transfer_ownership(&t, user, own_roles, key).await?;
    Ok(v1::TransferOwnershipResponse {
        new_owner: Some(convert::member(&owner)),
        previous_owner: previous.as_ref().map(convert::member),
    })
}
