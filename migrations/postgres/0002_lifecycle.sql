-- Catalogue, subscriptions, settings, domains, provisioning, jobs. Run as tenantry_owner with search_path = tenantry.

-- ---- people -----------------------------------------------------------------------------------------------------

alter table user_account add column external_id text collate "C";   -- the id in the system that they were imported from
create unique index user_account_external_id on user_account (external_id) where external_id is not null;
create index user_account_default_tenant on user_account (default_tenant_id);
create index session_active_tenant on session (active_tenant_id);

-- ---- tenants ----------------------------------------------------------------------------------------------------

alter table tenant
  add column plan_version             bigint      not null default 1,
  add column subscription_status      bigint      not null default 2,   -- 1 trialing, 2 active, 3 past due, 4 paused, 5 cancelled
  add column cycle                    bigint,                           -- 1 month, 2 year; as in catalogue.proto
  add column price                    bigint      not null default 0,   -- minor units, per cycle
  add column currency                 text        not null default '',
  add column anchor_at                timestamptz,                      -- periods are whole cycles from here
  add column period_start             timestamptz,
  add column period_end               timestamptz,
  add column paid_until               timestamptz,
  add column trial_end                timestamptz,
  add column grace_end                timestamptz,
  add column cancel_at_period_end     bigint      not null default 0,
  add column next_plan                text,
  add column next_plan_version        bigint,
  add column next_cycle               bigint,
  add column paused_at                timestamptz,
  add column cancelled_at             timestamptz,
  add column provider_customer        text        not null default '',
  add column provider_subscription    text        not null default '',
  add column provider_payment_method  text        not null default '',
  add column billed_at                timestamptz,                      -- time of the newest billing event
  add column settle_at                timestamptz,                      -- when time alone next changes something here
  add column pending                  bigint      not null default 0,
  add column verified                 bigint      not null default 0,
  add column demo                     bigint      not null default 0,
  add column maintenance              bigint      not null default 0,
  add column external_id              text        collate "C";
create index tenant_settle_at on tenant (settle_at) where settle_at is not null;
create index tenant_plan on tenant (plan, plan_version);

-- A slug that is an alias leads to the tenant until then.
alter table tenant_slug add column alias_until timestamptz;
create index tenant_slug_alias on tenant_slug (alias_until) where alias_until is not null;

-- Ids of other systems, unique on the whole platform.
create table tenant_external_id (
  external_id text not null collate "C" primary key,
  tenant_id   uuid not null references tenant (tenant_id)
);
create index tenant_external_id_tenant on tenant_external_id (tenant_id);

create table billing_event (
  tenant_id    uuid        not null references tenant (tenant_id),
  provider     text        not null collate "C",
  event_id     text        not null collate "C",
  payload_hash bytea       not null,
  kind         bigint      not null,                   -- as in subscription.proto
  at           timestamptz not null,
  amount       bigint      not null,
  currency     text        not null,
  applied      bigint      not null,
  created_at   timestamptz not null,
  primary key (tenant_id, provider, event_id)
);

create table limit_override (
  tenant_id   uuid        not null references tenant (tenant_id),
  metric      text        not null collate "C",
  limit_value bigint,                                  -- null: unlimited
  expires_at  timestamptz,
  reason      text        not null,
  updated_at  timestamptz not null,
  primary key (tenant_id, metric)
);

create table feature_switch (
  tenant_id  uuid        not null references tenant (tenant_id),
  feature    text        not null collate "C",
  source     bigint      not null,                     -- 2 operator's override, 3 tenant's own; as in entitlement.proto
  enabled    bigint      not null,
  expires_at timestamptz,
  updated_at timestamptz not null,
  primary key (tenant_id, feature, source)
);

create table tenant_settings (
  tenant_id  uuid        not null references tenant (tenant_id) primary key,
  body       text        not null,                     -- json: what the tenant has set itself
  version    bigint      not null,
  updated_at timestamptz not null
);

create table integration (
  tenant_id         uuid        not null references tenant (tenant_id),
  name              text        not null collate "C",
  config            text        not null,              -- json
  sealed            bytea,                             -- under the master key
  secret_updated_at timestamptz,
  version           bigint      not null,
  updated_at        timestamptz not null,
  primary key (tenant_id, name)
);

create table tenant_domain (
  tenant_id     uuid        not null references tenant (tenant_id),
  domain        text        not null collate "C",
  domain_id     uuid        not null,
  token         text        not null,                  -- what the TXT record must hold
  status        bigint      not null,                  -- 1 pending, 2 verified, 3 lapsed; as in domain.proto
  verified_at   timestamptz,
  checked_at    timestamptz,
  next_check_at timestamptz,
  failing_since timestamptz,
  problem       text        not null,
  created_at    timestamptz not null,
  primary key (tenant_id, domain)
);
create index tenant_domain_id on tenant_domain (domain_id);

-- Domains that are proven: public, and one tenant's each.
create table domain_host (
  domain    text not null collate "C" primary key,
  tenant_id uuid not null references tenant (tenant_id)
);
create index domain_host_tenant on domain_host (tenant_id);

-- What is to be sent, written with what it is about. The id is derived from that, so that nothing is said twice.
create table outbox (
  tenant_id  uuid        not null,
  message_id uuid        not null,
  template   text        not null,
  recipient  text        not null,
  payload    text        not null,                     -- json
  created_at timestamptz not null,
  primary key (tenant_id, message_id)
);

-- ---- the platform -----------------------------------------------------------------------------------------------

-- Catalogues that were put in force, all of them.
create table catalogue (
  version    bigint      primary key,
  digest     bytea       not null,                     -- SHA-256 of body
  body       text        not null,                     -- TOML
  applied_at timestamptz not null
);

create table plan_version (
  plan              text        not null collate "C",
  version           bigint      not null,
  definition        text        not null,              -- json
  catalogue_version bigint      not null,              -- the first that has it
  primary key (plan, version)
);

-- What is to be done later. `subject` is an id; nothing of a customer is in here.
create table job (
  kind         text        not null collate "C",
  subject      uuid        not null,
  due_at       timestamptz not null,
  attempts     bigint      not null,
  leased_until timestamptz,
  lease        uuid,                                   -- of whoever is at it
  last_error   text,
  primary key (kind, subject)
);
create index job_due on job (due_at);

-- ---- locks ------------------------------------------------------------------------------------------------------

alter table tenant_external_id enable row level security;
alter table tenant_external_id force row level security;
create policy tenant_only on tenant_external_id for all to tenantry_app
  using      (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid);
create policy system_read on tenant_external_id for select to tenantry_system using (true);
grant select, insert, delete on tenant_external_id to tenantry_app;
grant select on tenant_external_id to tenantry_system;

alter table billing_event enable row level security;
alter table billing_event force row level security;
create policy tenant_only on billing_event for all to tenantry_app
  using      (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid);
grant select, insert, delete on billing_event to tenantry_app;

alter table limit_override enable row level security;
alter table limit_override force row level security;
create policy tenant_only on limit_override for all to tenantry_app
  using      (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid);
create policy system_read on limit_override for select to tenantry_system using (true);
grant select, insert, update, delete on limit_override to tenantry_app;
grant select on limit_override to tenantry_system;

alter table feature_switch enable row level security;
alter table feature_switch force row level security;
create policy tenant_only on feature_switch for all to tenantry_app
  using      (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid);
grant select, insert, update, delete on feature_switch to tenantry_app;

alter table tenant_settings enable row level security;
alter table tenant_settings force row level security;
create policy tenant_only on tenant_settings for all to tenantry_app
  using      (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid);
grant select, insert, update, delete on tenant_settings to tenantry_app;

alter table integration enable row level security;
alter table integration force row level security;
create policy tenant_only on integration for all to tenantry_app
  using      (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid);
grant select, insert, update, delete on integration to tenantry_app;

alter table tenant_domain enable row level security;
alter table tenant_domain force row level security;
create policy tenant_only on tenant_domain for all to tenantry_app
  using      (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid);
create policy system_read on tenant_domain for select to tenantry_system using (true);
grant select, insert, update, delete on tenant_domain to tenantry_app;
grant select (tenant_id, domain, domain_id) on tenant_domain to tenantry_system;

alter table domain_host enable row level security;
alter table domain_host force row level security;
create policy tenant_only on domain_host for all to tenantry_app
  using      (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid);
create policy system_read on domain_host for select to tenantry_system using (true);
grant select, insert, delete on domain_host to tenantry_app;
grant select on domain_host to tenantry_system;

alter table outbox enable row level security;
alter table outbox force row level security;
create policy tenant_only on outbox for all to tenantry_app
  using      (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid);
grant select, insert, delete on outbox to tenantry_app;

grant select (external_id) on user_account to tenantry_system;
grant update, delete on tenant_slug to tenantry_app;

-- A purge removes everything of a tenant, in transactions that are bound to it.
grant delete on tenant to tenantry_app;
grant delete on membership to tenantry_app;
grant delete on quota_account to tenantry_app;
grant delete on usage_event to tenantry_app;
grant delete on audit_event to tenantry_app;
grant delete on rpc_rate to tenantry_app;

grant select, insert on catalogue to tenantry_app;
grant select on catalogue to tenantry_system;
grant select, insert on plan_version to tenantry_app;
grant select on plan_version to tenantry_system;
grant select, insert, update, delete on job to tenantry_app;
grant select (kind, subject) on job to tenantry_system;
