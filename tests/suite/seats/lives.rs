//! Lives of people at a tenant that has too few seats: each comes by one of the ways that there are, and
//! goes again.

use serde_json::Value;
use tenantry::rpc::v1;
use tenantry::rpc::v1::import_tenants_request::Item;

use super::history::{AWAY, Recorder, answered, patiently};
use crate::harness::{Bed, Person, Tenant, request_id, unique};
use crate::oidc;

/// How somebody comes to hold a seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Add,
    Invite,
    Bulk,
    /// By an invitation that is over, sent again.
    Resend,
    Import,
    /// Through the tenant's identity provider.
    Sso,
    /// Invited, they do not want to.
    Decline,
    /// Invited, it is taken back.
    Revoke,
}

impl Way {
    pub(super) const ALL: [Self; 8] =
        [Self::Add, Self::Invite, Self::Bulk, Self::Resend, Self::Import, Self::Sso, Self::Decline, Self::Revoke];
}

/// How somebody who has joined goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Going {
    Removed,
    Leaves,
    /// Ends their account.
    Deletes,
    Suspended,
    /// Suspended, let in again, and then removed.
    Back,
}

impl Going {
    pub(super) const ALL: [Self; 5] = [Self::Removed, Self::Back, Self::Leaves, Self::Deletes, Self::Suspended];
}

/// Where it all happens.
pub(super) struct Place {
    pub(super) tenant: Tenant,
    /// Its id where it was imported from.
    pub(super) external_id: String,
    /// A domain that its identity provider may speak for.
    pub(super) domain: String,
    pub(super) recorder: Recorder,
}

/// Somebody, and what there was of them before.
pub(super) struct Life {
    pub(super) way: Way,
    pub(super) person: Person,
    /// What the identity provider says of them.
    claims: Value,
    /// An invitation that is over.
    invitation_id: String,
}

/// Who has joined, and whether they have a password to sign in with.
struct Member {
    user_id: String,
    signs_in: bool,
}

fn user(external_id: &str, email: &str) -> Item {
    Item::User(v1::ImportUser {
        external_id: external_id.to_owned(),
        email: email.to_owned(),
        display_name: "Ann".to_owned(),
        ..Default::default()
    })
}

/// Imports one item; its id, or the reason why not.
pub(super) async fn import(t: &Bed, item: Item) -> Result<String, String> {
    for _ in 0..20 {
        let items = tokio_stream::iter([v1::ImportTenantsRequest { item: Some(item.clone()) }]);
        let mut stream = answered(t.operator().tenants.import_tenants(items).await)?;
        let Ok(done) = stream.message().await else { continue };
        match done.expect("an answer") {
            done if done.reason.is_empty() => return Ok(done.id),
            done if done.reason == AWAY => {}
            done => return Err(done.reason),
        }
    }
    panic!("never had its turn")
}

impl Place {
    /// A tenant on a plan, with its first owner, that can be imported into and signed in to through a provider.
    pub(super) async fn new(t: &Bed, plan: &str) -> Self {
        let (owner, external_id) = (t.person("owner").await, unique("acme"));
        let tenant = v1::ImportTenant {
            external_id: external_id.clone(),
            slug: external_id.clone(),
            display_name: "Acme".to_owned(),
            plan: plan.to_owned(),
            ..Default::default()
        };
        let id = import(t, Item::Tenant(tenant)).await.expect("a tenant");
        import(t, user(&owner.email, &owner.email)).await.expect("knows the account");
        let mut place = Self {
            tenant: Tenant { id, slug: external_id.clone(), owner: owner.clone() },
            external_id,
            domain: String::new(),
            recorder: Recorder::default(),
        };
        import(t, place.membership(&owner, "owner")).await.expect("an owner");
        place.tenant.owner = t.login(&owner, &place.tenant.id).await;
        place.domain = oidc::proven(t, &place.tenant).await;
        oidc::connect(t, &place.tenant, oidc::connection(oidc::providers(), "rs256")).await;
        place
    }

    fn membership(&self, person: &Person, role: &str) -> Item {
        Item::Membership(v1::ImportMembership {
            tenant_external_id: self.external_id.clone(),
            user_external_id: person.email.clone(),
            role: role.to_owned(),
            ..Default::default()
        })
    }

    /// Somebody who is to come this way. Invitations that are made here are to be over when they come.
    pub(super) async fn life(&self, t: &Bed, way: Way) -> Life {
        let person = t.person("p").await;
        let mut invitation_id = String::new();
        if way == Way::Import {
            import(t, user(&person.email, &person.email)).await.expect("knows the account");
        }
        if way == Way::Resend {
            let invited = t.operator().members.invite_member(self.invite(&person)).await.expect("invites");
            invitation_id = invited.into_inner().invitation.expect("an invitation").invitation_id;
        }
        Life { way, person, claims: oidc::somebody(&self.domain), invitation_id }
    }

    fn invite(&self, person: &Person) -> v1::InviteMemberRequest {
        v1::InviteMemberRequest {
            request_id: request_id(),
            tenant: self.tenant.id.clone(),
            email: person.email.clone(),
            ..Default::default()
        }
    }
}

impl Life {
    /// Comes, at one of the servers. None when there was no seat, or it was given back at once.
    async fn join(&self, t: &Bed, place: &Place) -> Result<Option<Member>, ()> {
        let (mut operator, mut own) = (t.operator(), t.with_token(&self.person.token));
        let (recorder, tenant) = (&place.recorder, place.tenant.id.clone());
        let member = Member { user_id: self.person.id.clone(), signs_in: true };
        let token = match self.way {
            Way::Add => {
                let add = v1::AddMemberRequest {
                    request_id: request_id(),
                    tenant,
                    email: self.person.email.clone(),
                    ..Default::default()
                };
                let call = patiently(async || operator.members.add_member(add.clone()).await);
                recorder.seats("add", 1, call).await.ok_or(())?;
                return Ok(Some(member));
            }
            Way::Import => {
                let call = Box::pin(import(t, place.membership(&self.person, "member")));
                recorder.seats("import", 1, call).await.ok_or(())?;
                return Ok(Some(member));
            }
            Way::Sso => {
                let begun = oidc::begin(t, &tenant, &self.claims).await.map_err(drop)?;
                let back = oidc::callback(&oidc::browse(&begun.url).await, &begun.binding);
                let call = async { answered(oidc::complete(t, back).await) };
                let done = recorder.seats("sso", 1, call).await.ok_or(())?;
                assert!(done.joined);
                return Ok(Some(Member { user_id: done.user.expect("a user").user_id, signs_in: false }));
            }
            Way::Resend => {
                let resend = v1::ResendInvitationRequest {
                    request_id: request_id(),
                    tenant,
                    invitation_id: self.invitation_id.clone(),
                    ..Default::default()
                };
                let call = patiently(async || operator.members.resend_invitation(resend.clone()).await);
                recorder.seats("resend", 1, call).await.ok_or(())?.token
            }
            Way::Bulk => self.bulk(t, place).await?,
            Way::Invite | Way::Decline | Way::Revoke => {
                let invite = place.invite(&self.person);
                let call = patiently(async || operator.members.invite_member(invite.clone()).await);
                let done = recorder.seats("invite", 1, call).await.ok_or(())?;
                if self.way == Way::Revoke {
                    let invitation_id = done.invitation.expect("an invitation").invitation_id;
                    let revoke = v1::RevokeInvitationRequest {
                        request_id: request_id(),
                        tenant,
                        invitation_id,
                        ..Default::default()
                    };
                    let call = patiently(async || operator.members.revoke_invitation(revoke.clone()).await);
                    recorder.seats("revoke", -1, call).await;
                    return Ok(None);
                }
                done.token
            }
        };
        if self.way == Way::Decline {
            let decline = v1::DeclineInvitationRequest { request_id: request_id(), token };
            let call = patiently(async || own.members.decline_invitation(decline.clone()).await);
            recorder.seats("decline", -1, call).await;
            return Ok(None);
        }
        let accept = v1::AcceptInvitationRequest { request_id: request_id(), token, ..Default::default() };
        recorder.seats("accept", 0, patiently(async || own.members.accept_invitation(accept.clone()).await)).await;
        Ok(Some(member))
    }

    /// Invited together with somebody else, whose invitation is taken back at once.
    async fn bulk(&self, t: &Bed, place: &Place) -> Result<String, ()> {
        let (mut operator, tenant) = (t.operator(), place.tenant.id.clone());
        let emails = [self.person.email.clone(), format!("{}@example.com", unique("x"))];
        let items = emails.map(|email| v1::InvitationItem { email, ..Default::default() }).to_vec();
        let request =
            v1::BulkInviteRequest { request_id: request_id(), tenant: tenant.clone(), items, ..Default::default() };
        let call = async {
            let results = patiently(async || operator.members.bulk_invite(request.clone()).await).await?.results;
            let became = |result: &v1::InvitationResult| match result.reason.as_str() {
                "" => Ok(1),
                reason => Err(reason.to_owned()),
            };
            Ok((results.iter().map(became).collect(), results))
        };
        let results = place.recorder.all("bulk", call).await.expect("an answer");
        if let Some(invitation) = &results[1].invitation {
            let revoke = v1::RevokeInvitationRequest {
                request_id: request_id(),
                tenant,
                invitation_id: invitation.invitation_id.clone(),
                ..Default::default()
            };
            let call = patiently(async || t.operator().members.revoke_invitation(revoke.clone()).await);
            place.recorder.seats("revoke", -1, call).await;
        }
        if results[0].token.is_empty() { Err(()) } else { Ok(results[0].token.clone()) }
    }

    async fn go(&self, t: &Bed, place: &Place, member: Member, going: Going) {
        let (mut operator, recorder, tenant) = (t.operator(), &place.recorder, place.tenant.id.clone());
        let user_id = member.user_id;
        if matches!(going, Going::Suspended | Going::Back) {
            let (tenant, user_id) = (tenant.clone(), user_id.clone());
            let suspend = v1::SuspendMemberRequest { request_id: request_id(), tenant, user_id };
            recorder
                .seats("suspend", -1, patiently(async || operator.members.suspend_member(suspend.clone()).await))
                .await;
        }
        if going == Going::Back {
            let (tenant, user_id) = (tenant.clone(), user_id.clone());
            let back = v1::ReactivateMemberRequest { request_id: request_id(), tenant, user_id };
            let call = patiently(async || operator.members.reactivate_member(back.clone()).await);
            if recorder.seats("reactivate", 1, call).await.is_none() {
                // Suspended, they hold none.
                return;
            }
        }
        match going {
            Going::Suspended => {}
            Going::Leaves if member.signs_in => {
                let mut own = t.with_token(&t.login(&self.person, &tenant).await.token);
                let leave = v1::LeaveTenantRequest { request_id: request_id(), ..Default::default() };
                recorder.seats("leave", -1, patiently(async || own.members.leave_tenant(leave.clone()).await)).await;
            }
            Going::Deletes if member.signs_in => {
                let mut own = t.with_token(&t.login(&self.person, "").await.token);
                let delete =
                    v1::DeleteAccountRequest { request_id: request_id(), confirm_email: self.person.email.clone() };
                recorder.seats("delete", -1, patiently(async || own.auth.delete_account(delete.clone()).await)).await;
            }
            Going::Removed | Going::Back | Going::Leaves | Going::Deletes => {
                let remove =
                    v1::RemoveMemberRequest { request_id: request_id(), tenant, user_id, ..Default::default() };
                recorder
                    .seats("remove", -1, patiently(async || operator.members.remove_member(remove.clone()).await))
                    .await;
            }
        }
    }

    /// Comes at the first of so many tries that finds a seat, and goes. Whether there was one.
    pub(super) async fn live(&self, t: &Bed, place: &Place, tries: usize, going: Going) -> bool {
        for _ in 0..tries {
            if let Ok(joined) = Box::pin(self.join(t, place)).await {
                if let Some(member) = joined {
                    self.go(t, place, member, going).await;
                }
                return true;
            }
        }
        false
    }
}
