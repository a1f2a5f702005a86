-- Single sign-on and impersonation: see ../README.md for the rules.

-- A session that did not begin with the person's own credentials opens one tenant only: because that tenant's identity
-- provider said who it is, or because an operator is in the person's place. Its end is found here.
alter table session add column sso_connection_id uuid;
alter table session add column operator_key_id uuid;
create index session_bound_tenant on session (bound_tenant_id) where bound_tenant_id is not null;

create table sso_connection (
  tenant_id     uuid        not null references tenant (tenant_id),
  connection_id uuid        not null,                  -- another one when issuer or client change: sessions end with it
  body          text        not null,                  -- json, without the secret
  sealed        bytea,                                 -- client secret, under the master key
  required      bigint      not null,                  -- 1 when the tenant is entered this way only
  version       bigint      not null,
  updated_at    timestamptz not null,
  primary key (tenant_id)
);

-- Whom a provider's own name for somebody stands for, in one tenant: another tenant's provider of the same name says
-- nothing there.
create table sso_identity (
  tenant_id  uuid        not null references tenant (tenant_id),
  issuer     text        not null collate "C",
  subject    text        not null collate "C",
  user_id    uuid        not null,
  created_at timestamptz not null,
  primary key (tenant_id, issuer, subject)
);

-- States that were used, until they are over anyway. Those that were only begun are not stored.
create table sso_state (
  tenant_id  uuid        not null references tenant (tenant_id),
  digest     bytea       not null,                     -- SHA-256
  expires_at timestamptz not null,
  primary key (tenant_id, digest)
);

create table impersonation (
  tenant_id        uuid        not null references tenant (tenant_id),
  impersonation_id uuid        not null,               -- of the session, too
  user_id          uuid        not null,
  operator_key_id  uuid        not null,
  operator_name    text        not null,
  reason           text        not null,
  started_at       timestamptz not null,
  expires_at       timestamptz not null,
  ended_at         timestamptz,
  primary key (tenant_id, impersonation_id)
);

-- ---- locks ------------------------------------------------------------------------------------------------------

alter table sso_connection enable row level security;
alter table sso_connection force row level security;
create policy tenant_only on sso_connection for all to tenantry_app
  using      (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid);
create policy system_read on sso_connection for select to tenantry_system using (true);
grant select, insert, update, delete on sso_connection to tenantry_app;
grant select (tenant_id, connection_id, required) on sso_connection to tenantry_system;

alter table sso_identity enable row level security;
alter table sso_identity force row level security;
create policy tenant_only on sso_identity for all to tenantry_app
  using      (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid);
grant select, insert, delete on sso_identity to tenantry_app;

alter table sso_state enable row level security;
alter table sso_state force row level security;
create policy tenant_only on sso_state for all to tenantry_app
  using      (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid);
grant select, insert, delete on sso_state to tenantry_app;

alter table impersonation enable row level security;
alter table impersonation force row level security;
create policy tenant_only on impersonation for all to tenantry_app
  using      (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid);
grant select, insert, update, delete on impersonation to tenantry_app;

grant select (sso_connection_id, operator_key_id) on session to tenantry_system;
