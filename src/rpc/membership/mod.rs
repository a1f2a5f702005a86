//! `MembershipService`: which file serves which method. Each function decodes, calls the use case and encodes.

mod invitations;
mod members;
mod roles;
mod sessions;

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
    list_member_sessions(ListMemberSessionsRequest) -> ListMemberSessionsResponse = sessions;
    revoke_member_sessions(RevokeMemberSessionsRequest) -> RevokeMemberSessionsResponse = sessions;
    invite_member(InviteMemberRequest) -> InviteMemberResponse = invitations;
    bulk_invite(BulkInviteRequest) -> BulkInviteResponse = invitations;
    preview_invitation(PreviewInvitationRequest) -> PreviewInvitationResponse = invitations;
    accept_invitation(AcceptInvitationRequest) -> AcceptInvitationResponse = invitations;
    decline_invitation(DeclineInvitationRequest) -> DeclineInvitationResponse = invitations;
    resend_invitation(ResendInvitationRequest) -> ResendInvitationResponse = invitations;
    revoke_invitation(RevokeInvitationRequest) -> RevokeInvitationResponse = invitations;
    list_invitations(ListInvitationsRequest) -> ListInvitationsResponse = invitations;
    list_my_invitations(ListMyInvitationsRequest) -> ListMyInvitationsResponse = invitations;
}
