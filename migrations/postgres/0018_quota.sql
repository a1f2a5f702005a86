-- The quota engine: accounts with leases, reservations and slots, events with their details, roll-ups, notices. Run as
-- tenantry_owner with search_path = tenantry.
--
-- A server of the version before refuses to consume from here on (its `on conflict` finds no such key): counting beside
-- leases that it knows nothing of would exceed limits.

-- One counter of a tenant, member or key in a period. committed + reserved + leased + forfeited <= limit_value, except for
-- what is recorded after the fact and after a limit was lowered. Used is committed + the sum of what leases have settled.
alter table quota_account
  drop constraint quota_account_pkey,
  drop constraint quota_account_committed_check,                          -- folding may lag behind a refund
  add column account_id   uuid        not null default gen_random_uuid(),
  add column scope        bigint      not null default 2,                 -- 0 key, 1 member, 2 tenant: the order of locks
  add column scope_id     uuid        not null default '00000000-0000-0000-0000-000000000000',
  add column period_end   timestamptz,                                    -- null in rows of before: a calendar month, UTC
  add column limit_value  bigint      not null default 0,                 -- up to where amounts are admitted; 2^62 is unlimited
  add column limit_until  timestamptz,                                    -- when the limit is to be looked at anew
  add column shown_limit  bigint,                                         -- without grace; null is unlimited
  add column limit_source bigint      not null default 1,                 -- 1 plan, 2 override
  add column revision     bigint      not null default 1,                 -- rises with each change of the limit
  add column reserved     bigint      not null default 0 check (reserved >= 0),
  add column leased       bigint      not null default 0 check (leased >= 0),
  add column forfeited    bigint      not null default 0 check (forfeited >= 0),
  add column recall_need  bigint      not null default 0 check (recall_need >= 0),
  add column next_epoch   bigint      not null default 1,
  add column sequence     bigint,                                         -- of the last set of a gauge
  add column thresholds   text        not null default '[]',              -- json: percents that somebody is told of
  add column told_percent bigint      not null default 0,                 -- the highest of them that was reached
  add column archived     bigint      not null default 0,                 -- charges of events that are no longer kept
  add primary key (tenant_id, account_id);
create unique index quota_account_period on quota_account (tenant_id, metric, scope, scope_id, period_start);
create index quota_account_top on quota_account (metric, period_end) where scope = 2;   -- who uses most
alter table quota_account set (fillfactor = 50);

-- What a commit lane holds of an account. Closed: epoch 0, granted 0, settled 0.
create table quota_lease (
  tenant_id  uuid   not null,
  account_id uuid   not null,
  writer_id  uuid   not null,
  class      bigint not null,                          -- 0 durable, 1 leased
  epoch      bigint not null,
  granted    bigint not null,
  settled    bigint not null,
  forfeited  bigint not null default 0 check (forfeited >= 0),
  check (0 <= settled and settled <= granted),
  primary key (tenant_id, account_id, writer_id, class)
) with (fillfactor = 50);
create index quota_lease_writer on quota_lease (writer_id);

-- A commit lane of a process. Its batch number tells whether a commit of unknown outcome happened.
create table quota_writer (
  writer_id  uuid   primary key,
  process_id uuid   not null,
  batch_no   bigint not null,
  beat       bigint not null
);

-- Without a foreign key: every event would lock its tenant's row.
alter table usage_event
  drop constraint usage_event_tenant_id_fkey,
  alter column answer drop not null,                   -- of the version before
  add column kind       bigint      not null default 1, -- 1 consume, 2 reserve, 3 record, 4 refund, 5 commit, 6 set
  add column ack        bigint      not null default 0, -- as in types.proto
  add column event_at   timestamptz,                   -- null in rows of before: decided_at
  add column member_id  uuid,                          -- the person
  add column api_key_id uuid,
  add column endpoint   text        not null default '',
  add column method     text        not null default '',
  add column status     bigint      not null default 0,
  add column latency_us bigint      not null default 0,
  add column attributes text        not null default '',  -- json object
  add column subject    text        not null default '';  -- key of the event refunded, or id of the reservation
create index usage_event_at on usage_event (tenant_id, coalesce(event_at, decided_at), key);

-- Reservations and slots: units set aside until they are committed, released, or expire. The state decides, not the clock.
create table quota_hold (
  tenant_id  uuid        not null,
  hold_id    uuid        not null,
  kind       bigint      not null,                     -- 1 reservation, 2 slot
  key        text        not null collate "C",         -- of the event that opened it
  state      bigint      not null,                     -- 1 held, 2 committed, 3 released, 4 expired
  charges    text        not null,                     -- json, as in usage_event
  actual     text        not null default '',          -- json: what was committed
  holder     text        not null default '',
  opened_by  uuid        not null,                     -- caller: user or key
  expires_at timestamptz not null,
  created_at timestamptz not null,
  ended_at   timestamptz,
  primary key (tenant_id, hold_id)
);
create index quota_hold_due on quota_hold (expires_at) where state = 1;

-- Amounts by quarter of an hour and by everything that usage is asked by; sharded by lane, so that no row is hot.
create table usage_rollup (
  tenant_id  uuid        not null,
  bucket     timestamptz not null,
  metric     text        not null collate "C",
  member_id  uuid        not null,                     -- nil when there is none
  api_key_id uuid        not null,
  endpoint   text        not null collate "C",
  method     text        not null collate "C",
  status     bigint      not null,
  shard      bigint      not null,
  events     bigint      not null,
  amount     bigint      not null,
  primary key (tenant_id, bucket, metric, member_id, api_key_id, endpoint, method, status, shard)
) with (fillfactor = 80);

-- Percents of a metric's limit of which the tenant wants to be told.
create table quota_threshold (
  tenant_id uuid not null,
  metric    text not null collate "C",
  percents  text not null,                             -- json array
  primary key (tenant_id, metric)
);

-- A threshold that was reached, once a period; the job `quota_notice` tells people.
create table quota_notice (
  tenant_id   uuid        not null,
  notice_id   uuid        not null,
  account_id  uuid        not null,
  metric      text        not null,
  percent     bigint      not null,
  used        bigint      not null,
  limit_value bigint      not null,
  period_end  timestamptz not null,
  at          timestamptz not null,
  told_at     timestamptz,
  primary key (tenant_id, notice_id)
);

-- What retention has forgotten: events that happened, and were decided, before this may be gone.
create table usage_horizon (
  tenant_id       uuid        primary key,
  forgotten_until timestamptz not null                 -- the beginning of a quarter of an hour
);

-- ---- locks ------------------------------------------------------------------------------------------------------

alter table quota_lease enable row level security;
alter table quota_lease force row level security;
create policy tenant_only on quota_lease for all to tenantry_app
  using      (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid);
grant select, insert, update, delete on quota_lease to tenantry_app;

alter table quota_hold enable row level security;
alter table quota_hold force row level security;
create policy tenant_only on quota_hold for all to tenantry_app
  using      (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid);
grant select, insert, update, delete on quota_hold to tenantry_app;

alter table usage_rollup enable row level security;
alter table usage_rollup force row level security;
create policy tenant_only on usage_rollup for all to tenantry_app
  using      (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid);
grant select, insert, update, delete on usage_rollup to tenantry_app;

alter table quota_threshold enable row level security;
alter table quota_threshold force row level security;
create policy tenant_only on quota_threshold for all to tenantry_app
  using      (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid);
grant select, insert, update, delete on quota_threshold to tenantry_app;

alter table quota_notice enable row level security;
alter table quota_notice force row level security;
create policy tenant_only on quota_notice for all to tenantry_app
  using      (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid);
grant select, insert, update, delete on quota_notice to tenantry_app;

alter table usage_horizon enable row level security;
alter table usage_horizon force row level security;
create policy tenant_only on usage_horizon for all to tenantry_app
  using      (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid);
grant select, insert, update, delete on usage_horizon to tenantry_app;

-- The commit lanes write rows of many tenants in one transaction: these tables alone are open to tenantry_meter.
create policy meter_all on quota_account for all to tenantry_meter using (true) with check (true);
grant select, update on quota_account to tenantry_meter;
create policy meter_all on quota_lease for all to tenantry_meter using (true) with check (true);
grant select, insert, update, delete on quota_lease to tenantry_meter;
create policy meter_all on quota_hold for all to tenantry_meter using (true) with check (true);
grant select, insert, update on quota_hold to tenantry_meter;
create policy meter_all on usage_event for all to tenantry_meter using (true) with check (true);
grant select, insert, update, delete on usage_event to tenantry_meter;
create policy meter_all on usage_rollup for all to tenantry_meter using (true) with check (true);
grant select, insert, update on usage_rollup to tenantry_meter;
create policy meter_all on quota_notice for all to tenantry_meter using (true) with check (true);
grant insert on quota_notice to tenantry_meter;
create policy meter_all on usage_horizon for all to tenantry_meter using (true) with check (true);
grant select on usage_horizon to tenantry_meter;
grant select, insert, update, delete on quota_writer to tenantry_meter;
grant select, insert, update on job to tenantry_meter;
grant select on expected_policy to tenantry_meter;
create policy system_read on quota_lease for select to tenantry_system using (true);
grant select (tenant_id, account_id, settled) on quota_lease to tenantry_system;
create policy system_read on usage_rollup for select to tenantry_system using (true);
grant select on usage_rollup to tenantry_system;
