-- Invitations.

create table invitation (
  tenant_id blob not null references tenant (tenant_id),
  invitation_id blob not null,
  email text not null,
  roles text not null, -- json array
  status integer not null, -- 1 pending, 2 accepted, 3 declined, 4 revoked, 5 expired; as in invitation.proto
  digest blob not null, -- SHA-256 of the token
  inviter_id blob, -- who answers for it; null: a service or an operator
  opens_tenant integer not null, -- whether a pending tenant begins with its acceptance
  accepted_by blob,
  version integer not null,
  created_at integer not null,
  updated_at integer not null,
  sent_at integer not null, -- of the token that counts
  expires_at integer not null,
  primary key (tenant_id, invitation_id)
) strict;
-- A finished invitation never stands in the way of a new one.
create unique index invitation_pending on invitation (tenant_id, email) where status = 1;
create unique index invitation_digest on invitation (digest);
create index invitation_of_email on invitation (email, tenant_id) where status = 1;
