-- Catalogue, subscriptions, settings, domains, provisioning, jobs. For SQLite: the tables of ../postgres/0002_lifecycle.sql.

-- ---- people -----------------------------------------------------------------------------------------------------

alter table user_account add column external_id text; -- the id in the system that they were imported from
create unique index user_account_external_id on user_account (external_id) where external_id is not null;
create index user_account_default_tenant on user_account (default_tenant_id);
create index session_active_tenant on session (active_tenant_id);

-- ---- tenants ----------------------------------------------------------------------------------------------------

alter table tenant add column plan_version integer not null default 1;
alter table tenant add column subscription_status integer not null default 2; -- 1 trialing, 2 active, 3 past due, 4 paused, 5 cancelled
alter table tenant add column cycle integer; -- 1 month, 2 year; as in catalogue.proto
alter table tenant add column price integer not null default 0; -- minor units, per cycle
alter table tenant add column currency text not null default '';
alter table tenant add column anchor_at integer; -- periods are whole cycles from here
alter table tenant add column period_start integer;
alter table tenant add column period_end integer;
alter table tenant add column paid_until integer;
alter table tenant add column trial_end integer;
alter table tenant add column grace_end integer;
alter table tenant add column cancel_at_period_end integer not null default 0;
alter table tenant add column next_plan text;
alter table tenant add column next_plan_version integer;
alter table tenant add column next_cycle integer;
alter table tenant add column paused_at integer;
alter table tenant add column cancelled_at integer;
alter table tenant add column provider_customer text not null default '';
alter table tenant add column provider_subscription text not null default '';
alter table tenant add column provider_payment_method text not null default '';
alter table tenant add column billed_at integer; -- time of the newest billing event
alter table tenant add column settle_at integer; -- when time alone next changes something here
alter table tenant add column pending integer not null default 0;
alter table tenant add column verified integer not null default 0;
alter table tenant add column demo integer not null default 0;
alter table tenant add column maintenance integer not null default 0;
alter table tenant add column external_id text;
create index tenant_settle_at on tenant (settle_at) where settle_at is not null;
create index tenant_plan on tenant (plan, plan_version);

-- A slug that is an alias leads to the tenant until then.
alter table tenant_slug add column alias_until integer;
create index tenant_slug_alias on tenant_slug (alias_until) where alias_until is not null;

-- Ids of other systems, unique on the whole platform.
create table tenant_external_id (
  external_id text not null primary key,
  tenant_id blob not null references tenant (tenant_id)
) strict;
create index tenant_external_id_tenant on tenant_external_id (tenant_id);

create table billing_event (
  tenant_id blob not null references tenant (tenant_id),
  provider text not null,
  event_id text not null,
  payload_hash blob not null,
  kind integer not null, -- as in subscription.proto
  at integer not null,
  amount integer not null,
  currency text not null,
  applied integer not null,
  created_at integer not null,
  primary key (tenant_id, provider, event_id)
) strict;

create table limit_override (
  tenant_id blob not null references tenant (tenant_id),
  metric text not null,
  limit_value integer, -- null: unlimited
  expires_at integer,
  reason text not null,
  updated_at integer not null,
  primary key (tenant_id, metric)
) strict;

create table feature_switch (
  tenant_id blob not null references tenant (tenant_id),
  feature text not null,
  source integer not null, -- 2 operator's override, 3 tenant's own; as in entitlement.proto
  enabled integer not null,
  expires_at integer,
  updated_at integer not null,
  primary key (tenant_id, feature, source)
) strict;

create table tenant_settings (
  tenant_id blob not null references tenant (tenant_id) primary key,
  body text not null, -- json: what the tenant has set itself
  version integer not null,
  updated_at integer not null
) strict;

create table integration (
  tenant_id blob not null references tenant (tenant_id),
  name text not null,
  config text not null, -- json
  sealed blob, -- under the master key
  secret_updated_at integer,
  version integer not null,
  updated_at integer not null,
  primary key (tenant_id, name)
) strict;

create table tenant_domain (
  tenant_id blob not null references tenant (tenant_id),
  domain text not null,
  domain_id blob not null,
  token text not null, -- what the TXT record must hold
  status integer not null, -- 1 pending, 2 verified, 3 lapsed; as in domain.proto
  verified_at integer,
  checked_at integer,
  next_check_at integer,
  failing_since integer,
  problem text not null,
  created_at integer not null,
  primary key (tenant_id, domain)
) strict;
create index tenant_domain_id on tenant_domain (domain_id);

-- Domains that are proven: public, and one tenant's each.
create table domain_host (
  domain text not null primary key,
  tenant_id blob not null references tenant (tenant_id)
) strict;
create index domain_host_tenant on domain_host (tenant_id);

-- What is to be sent, written with what it is about. The id is derived from that, so that nothing is said twice.
create table outbox (
  tenant_id blob not null,
  message_id blob not null,
  template text not null,
  recipient text not null,
  payload text not null, -- json
  created_at integer not null,
  primary key (tenant_id, message_id)
) strict;

-- ---- the platform -----------------------------------------------------------------------------------------------

-- Catalogues that were put in force, all of them.
create table catalogue (
  version integer primary key,
  digest blob not null, -- SHA-256 of body
  body text not null, -- TOML
  applied_at integer not null
) strict;

create table plan_version (
  plan text not null,
  version integer not null,
  definition text not null, -- json
  catalogue_version integer not null, -- the first that has it
  primary key (plan, version)
) strict;

-- What is to be done later. `subject` is an id; nothing of a customer is in here.
create table job (
  kind text not null,
  subject blob not null,
  due_at integer not null,
  attempts integer not null,
  leased_until integer,
  lease blob, -- of whoever is at it
  last_error text,
  primary key (kind, subject)
) strict;
create index job_due on job (due_at);
