-- Single sign-on and impersonation: see ../README.md for the rules.

-- A session that did not begin with the person's own credentials opens one tenant only: because that tenant's identity
-- provider said who it is, or because an operator is in the person's place. Its end is found here.
alter table session add column sso_connection_id blob;
alter table session add column operator_key_id blob;
create index session_bound_tenant on session (bound_tenant_id) where bound_tenant_id is not null;

create table sso_connection (
  tenant_id blob not null references tenant (tenant_id),
  connection_id blob not null, -- another one when issuer or client change: sessions end with it
  body text not null, -- json, without the secret
  sealed blob, -- client secret, under the master key
  required integer not null, -- 1 when the tenant is entered this way only
  version integer not null,
  updated_at integer not null,
  primary key (tenant_id)
) strict;

-- Whom a provider's own name for somebody stands for, in one tenant: another tenant's provider of the same name says
-- nothing there.
create table sso_identity (
  tenant_id blob not null references tenant (tenant_id),
  issuer text not null,
  subject text not null,
  user_id blob not null,
  created_at integer not null,
  primary key (tenant_id, issuer, subject)
) strict;

-- States that were used, until they are over anyway. Those that were only begun are not stored.
create table sso_state (
  tenant_id blob not null references tenant (tenant_id),
  digest blob not null, -- SHA-256
  expires_at integer not null,
  primary key (tenant_id, digest)
) strict;

create table impersonation (
  tenant_id blob not null references tenant (tenant_id),
  impersonation_id blob not null, -- of the session, too
  user_id blob not null,
  operator_key_id blob not null,
  operator_name text not null,
  reason text not null,
  started_at integer not null,
  expires_at integer not null,
  ended_at integer,
  primary key (tenant_id, impersonation_id)
) strict;
