-- Invitations. Run as tenantry_owner with search_path = tenantry.

create table invitation (
  tenant_id     uuid        not null references tenant (tenant_id),
  invitation_id uuid        not null,
  email         text        not null collate "C",
  roles         text        not null,                  -- json array
  status        bigint      not null,                  -- 1 pending, 2 accepted, 3 declined, 4 revoked, 5 expired; as in invitation.proto
  digest        bytea       not null,                  -- SHA-256 of the token
  inviter_id    uuid,                                  -- who answers for it; null: a service or an operator
  opens_tenant  bigint      not null,                  -- whether a pending tenant begins with its acceptance
  accepted_by   uuid,
  version       bigint      not null,
  created_at    timestamptz not null,
  updated_at    timestamptz not null,
  sent_at       timestamptz not null,                  -- of the token that counts
  expires_at    timestamptz not null,
  primary key (tenant_id, invitation_id)
);
-- A finished invitation never stands in the way of a new one.
create unique index invitation_pending on invitation (tenant_id, email) where status = 1;
create unique index invitation_digest on invitation (digest);
create index invitation_of_email on invitation (email, tenant_id) where status = 1;

alter table invitation enable row level security;
alter table invitation force row level security;
create policy tenant_only on invitation for all to tenantry_app
  using      (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid);
create policy system_read on invitation for select to tenantry_system using (true);
grant select, insert, update, delete on invitation to tenantry_app;
grant select on invitation to tenantry_system;
