-- Webhooks with what is sent to them, and reading the platform's audit log. Run as tenantry_owner with search_path = tenantry.

create table webhook (
  tenant_id     uuid        not null references tenant (tenant_id),
  webhook_id    uuid        not null,
  url           text        not null,
  description   text        not null,
  event_types   text        not null,                  -- json array; all when empty
  status        bigint      not null,                  -- 1 enabled, 2 disabled, 3 dead; as in webhook.proto
  sealed        bytea       not null,                  -- the secret, under the master key
  sealed_old    bytea,                                 -- the one before the last rotation
  old_until     timestamptz,
  failures      bigint      not null,                  -- in a row
  failing_since timestamptz,
  problem       text        not null,
  rests_until   timestamptz,                           -- nothing new is tried before
  version       bigint      not null,
  created_at    timestamptz not null,
  updated_at    timestamptz not null,
  primary key (tenant_id, webhook_id)
);
create index webhook_id on webhook (webhook_id);

create table webhook_delivery (
  tenant_id       uuid        not null,
  delivery_id     uuid        not null,
  webhook_id      uuid        not null,
  event_type      text        not null,
  body            text        not null,                -- json, as it is sent
  status          bigint      not null,                -- 1 waiting, 2 delivered, 3 given up; as in webhook.proto
  attempts        bigint      not null,
  response_code   bigint      not null,
  problem         text        not null,
  created_at      timestamptz not null,
  attempted_at    timestamptz,
  next_attempt_at timestamptz not null,
  ended_at        timestamptz,
  primary key (tenant_id, delivery_id)
);
create index webhook_delivery_of on webhook_delivery (tenant_id, webhook_id, delivery_id);
create index webhook_delivery_waiting on webhook_delivery (tenant_id, webhook_id, next_attempt_at) where status = 1;
create index webhook_delivery_ended on webhook_delivery (tenant_id, webhook_id, ended_at) where status <> 1;

alter table webhook enable row level security;
alter table webhook force row level security;
create policy tenant_only on webhook for all to tenantry_app
  using      (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid);
create policy system_read on webhook for select to tenantry_system using (true);
grant select, insert, update, delete on webhook to tenantry_app;
grant select (tenant_id, webhook_id) on webhook to tenantry_system;

alter table webhook_delivery enable row level security;
alter table webhook_delivery force row level security;
create policy tenant_only on webhook_delivery for all to tenantry_app
  using      (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid);
grant select, insert, update, delete on webhook_delivery to tenantry_app;

grant select on platform_audit to tenantry_system;
