//! `MembershipService`: which file serves which method. Each function decodes, calls the use case and encodes.

mod members;
mod roles;

use super::{Services, v1};

super::served! { v1::membership_service_server::MembershipService:
    add_member(AddMemberRequest) -> AddMemberResponse = members;
    get_member(GetMemberRequest) -> GetMemberResponse = members;
    list_members(ListMembersRequest) -> ListMembersResponse = members;
    update_member_role(UpdateMemberRoleRequest) -> UpdateMemberRoleResponse = members;
    suspend_member(SuspendMemberRequest) -> SuspendMemberResponse = members;
    reactivate_member(ReactivateMemberRequest) -> ReactivateMemberResponse = members;
    remove_member(RemoveMemberRequest) -> RemoveMemberResponse = members;
    leave_tenant(LeaveTenantRequest) -> LeaveTenantResponse = members;
    transfer_ownership(TransferOwnershipRequest) -> TransferOwnershipResponse = members;
    create_role(CreateRoleRequest) -> CreateRoleResponse = roles;
    update_role(UpdateRoleRequest) -> UpdateRoleResponse = roles;
    delete_role(DeleteRoleRequest) -> DeleteRoleResponse = roles;
    list_roles(ListRolesRequest) -> ListRolesResponse = roles;
    list_permissions(ListPermissionsRequest) -> ListPermissionsResponse = roles;
}
