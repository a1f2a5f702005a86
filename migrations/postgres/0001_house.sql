-- The first schema. Run as tenantry_owner with search_path = tenantry; see ../README.md for the rules.
--
-- Three kinds of tables:
--   of a tenant     lead with tenant_id, policy tenant_only: visible to the application only inside a transaction that
--                   has set tenantry.tenant
--   of a person     have user_id, policy user_only: the same with tenantry.user
--   of the platform have neither; nothing of a customer is in them
-- tenantry_system reads across tenants, by column, and writes nothing.

-- ---- people -----------------------------------------------------------------------------------------------------

create table user_account (
  user_id           uuid        primary key,
  email             text        not null collate "C",
  display_name      text        not null,
  status            bigint      not null,              -- 1 active, 2 disabled
  session_epoch     bigint      not null,              -- sessions of an older epoch are dead
  default_tenant_id uuid,
  created_at        timestamptz not null,
  updated_at        timestamptz not null
);
create unique index user_account_email on user_account (email);

create table credential (
  user_id       uuid        primary key,
  password_hash text        not null,                  -- PHC string
  updated_at    timestamptz not null
);

create table device (
  user_id    uuid        not null,
  digest     bytea       not null,                     -- SHA-256 of the device token
  created_at timestamptz not null,
  seen_at    timestamptz not null,
  primary key (user_id, digest)
);

create table session (
  user_id             uuid        not null,
  session_id          uuid        not null,
  epoch               bigint      not null,
  active_tenant_id    uuid,
  auth_time           timestamptz not null,
  created_at          timestamptz not null,
  absolute_expires_at timestamptz not null,
  revoked_at          timestamptz,
  revoke_reason       text,
  primary key (user_id, session_id)
);

-- ---- tenants ----------------------------------------------------------------------------------------------------

create table tenant (
  tenant_id      uuid        primary key,
  slug           text        not null collate "C",
  display_name   text        not null,
  status         bigint      not null,                 -- 3 active, 4 suspended, 6 deleted; as in access.proto
  suspend_reason text,
  suspended_by   bigint,                               -- caller kind; as in access.proto
  plan           text        not null,
  version        bigint      not null,
  created_at     timestamptz not null,
  updated_at     timestamptz not null,
  deleted_at     timestamptz,
  purge_at       timestamptz
);

-- Slugs are public and unique on the whole platform, so they live in a table of their own.
create table tenant_slug (
  slug      text not null collate "C" primary key,
  tenant_id uuid not null references tenant (tenant_id)
);
create index tenant_slug_tenant on tenant_slug (tenant_id);

create table membership (
  tenant_id     uuid        not null references tenant (tenant_id),
  membership_id uuid        not null,                  -- new at each join
  user_id       uuid        not null,
  role          text        not null,
  status        bigint      not null,                  -- 1 active, 2 suspended, 3 removed
  version       bigint      not null,
  joined_at     timestamptz not null,
  updated_at    timestamptz not null,
  primary key (tenant_id, membership_id)
);
create unique index membership_user on membership (tenant_id, user_id) where status <> 3;
create index membership_of_user on membership (user_id, tenant_id) where status <> 3;

-- ---- usage ------------------------------------------------------------------------------------------------------

create table quota_account (
  tenant_id    uuid        not null references tenant (tenant_id),
  metric       text        not null collate "C",
  period_start timestamptz not null,
  committed    bigint      not null check (committed >= 0),
  primary key (tenant_id, metric, period_start)
);

create table usage_event (
  tenant_id    uuid        not null references tenant (tenant_id),
  key          text        not null collate "C",       -- idempotency key, or one of the server's
  payload_hash bytea       not null,
  verdict      bigint      not null,                   -- 1 admitted, 2 refused
  charges      text        not null,                   -- json: metric -> amount; {} when refused
  answer       text        not null,                   -- json: what the caller was told
  decided_at   timestamptz not null,
  primary key (tenant_id, key)
);

-- ---- what every mutation leaves behind --------------------------------------------------------------------------

create table audit_event (
  tenant_id    uuid        not null,
  event_id     uuid        not null,
  at           timestamptz not null,
  actor_kind   bigint      not null,                   -- caller kind; as in access.proto
  actor_id     uuid,
  on_behalf_of uuid,                                   -- the user whom a service acted for
  action       text        not null,                   -- Service/Method
  subject_id   uuid,
  changes      text        not null,                   -- json: field -> {before, after}
  request_id   text        not null,
  source       text,
  primary key (tenant_id, event_id)
);

create table platform_audit (
  event_id     uuid        primary key,
  at           timestamptz not null,
  actor_kind   bigint      not null,
  actor_id     uuid,
  on_behalf_of uuid,
  action       text        not null,
  subject_id   uuid,
  changes      text        not null,
  request_id   text        not null,
  source       text
);

create table idempotency (
  tenant_id    uuid        not null,                   -- nil when the method has no tenant
  caller_kind  bigint      not null,
  caller_id    uuid        not null,
  method       text        not null,
  request_hash bytea       not null,                   -- SHA-256 of request_id
  body_mac     bytea       not null,
  answer       bytea       not null,                   -- sealed under a key derived from request_id
  expires_at   timestamptz not null,                   -- of the answer
  created_at   timestamptz not null,
  primary key (tenant_id, caller_kind, caller_id, method, request_hash)
);

-- The change feed. The advisory lock orders commits, so whoever has seen n has seen everything
-- up to n. Keys only, never values.
create table change (
  seq       bigint      not null,
  ord       smallint    not null,                      -- several rows of one transaction share seq
  nonce     integer     not null,                      -- random per transaction
  at        timestamptz not null,                      -- for people and retention; never compared
  kind      smallint    not null,
  tenant_id uuid,
  key1      uuid,
  key2      uuid,
  key_hash  bytea,                                     -- host, slug, key digest: first 16 bytes of SHA-256
  primary key (seq, ord)
);
create sequence change_seq cache 1;
insert into change values (0, 0, 0, '1970-01-01Z', 0, null, null, null, null);   -- never empty

create function feed_append(nonce integer, at timestamptz, k smallint[], t uuid[], a uuid[], b uuid[], h bytea[])
returns bigint language plpgsql volatile as $$
declare s bigint;
begin
  perform pg_advisory_xact_lock(7261, 1);
  s := nextval('change_seq');
  insert into change
  select s, x.o - 1, feed_append.nonce, feed_append.at, x.k, x.t, x.a, x.b, x.h
  from unnest(k, t, a, b, h) with ordinality as x(k, t, a, b, h, o);
  perform pg_notify('tenantry_feed', '');
  return s;
end $$;

-- ---- the platform -----------------------------------------------------------------------------------------------

create table master_key (
  kid         bigint   primary key,
  check_value bytea    not null                        -- HMAC(key, "tenantry"): is this the right key file?
);

create table signing_key (
  kid        text        primary key,
  state      text        not null,                     -- current
  public_key bytea       not null,
  sealed     bytea       not null,                     -- PKCS#8, under the master key
  created_at timestamptz not null
);
create unique index signing_key_current on signing_key (state) where state = 'current';

create table platform_key (
  platform_key_id uuid        primary key,
  kind            bigint      not null,                -- caller kind; as in access.proto
  key_id          text        not null collate "C",    -- the public part of the key
  digest          bytea       not null,                -- SHA-256 of the whole key
  display_name    text        not null,
  permissions     text        not null,                -- json array
  created_at      timestamptz not null,
  expires_at      timestamptz,
  revoked_at      timestamptz
);
create unique index platform_key_key_id on platform_key (key_id);

create table rpc_rate (
  method     text        not null,
  subject    text        not null,                     -- whose calls are counted
  hits       bytea       not null,                     -- times of the counted calls, 8 bytes each
  updated_at timestamptz not null,
  primary key (method, subject)
);

-- What `tenantry migrate` found the policies to be; the start-up check compares. Written by the owner alone.
create table expected_policy (
  role   text not null,
  digest text not null,
  primary key (role, digest)
);

-- ---- locks ------------------------------------------------------------------------------------------------------

alter table user_account enable row level security;
alter table user_account force row level security;
create policy user_only on user_account for all to tenantry_app
  using      (user_id = nullif(current_setting('tenantry.user', true), '')::uuid)
  with check (user_id = nullif(current_setting('tenantry.user', true), '')::uuid);
create policy system_read on user_account for select to tenantry_system using (true);
grant select, insert, update on user_account to tenantry_app;
grant select (user_id, email, display_name, status, session_epoch, default_tenant_id) on user_account to tenantry_system;

alter table credential enable row level security;
alter table credential force row level security;
create policy user_only on credential for all to tenantry_app
  using      (user_id = nullif(current_setting('tenantry.user', true), '')::uuid)
  with check (user_id = nullif(current_setting('tenantry.user', true), '')::uuid);
grant select, insert, update on credential to tenantry_app;

alter table device enable row level security;
alter table device force row level security;
create policy user_only on device for all to tenantry_app
  using      (user_id = nullif(current_setting('tenantry.user', true), '')::uuid)
  with check (user_id = nullif(current_setting('tenantry.user', true), '')::uuid);
grant select, insert, update, delete on device to tenantry_app;

alter table session enable row level security;
alter table session force row level security;
create policy user_only on session for all to tenantry_app
  using      (user_id = nullif(current_setting('tenantry.user', true), '')::uuid)
  with check (user_id = nullif(current_setting('tenantry.user', true), '')::uuid);
create policy system_read on session for select to tenantry_system using (true);
grant select, insert, update on session to tenantry_app;
grant select (user_id, session_id, epoch, active_tenant_id, auth_time, absolute_expires_at, revoked_at) on session to tenantry_system;

alter table tenant enable row level security;
alter table tenant force row level security;
create policy tenant_only on tenant for all to tenantry_app
  using      (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid);
create policy system_read on tenant for select to tenantry_system using (true);
grant select, insert, update on tenant to tenantry_app;
grant select on tenant to tenantry_system;

alter table tenant_slug enable row level security;
alter table tenant_slug force row level security;
create policy tenant_only on tenant_slug for all to tenantry_app
  using      (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid);
create policy system_read on tenant_slug for select to tenantry_system using (true);
grant select, insert on tenant_slug to tenantry_app;
grant select on tenant_slug to tenantry_system;

alter table membership enable row level security;
alter table membership force row level security;
create policy tenant_only on membership for all to tenantry_app
  using      (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid);
create policy system_read on membership for select to tenantry_system using (true);
grant select, insert, update on membership to tenantry_app;
grant select on membership to tenantry_system;

alter table quota_account enable row level security;
alter table quota_account force row level security;
create policy tenant_only on quota_account for all to tenantry_app
  using      (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid);
create policy system_read on quota_account for select to tenantry_system using (true);
grant select, insert, update on quota_account to tenantry_app;
grant select on quota_account to tenantry_system;

alter table usage_event enable row level security;
alter table usage_event force row level security;
create policy tenant_only on usage_event for all to tenantry_app
  using      (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid);
grant select, insert, update on usage_event to tenantry_app;

alter table audit_event enable row level security;
alter table audit_event force row level security;
create policy tenant_only on audit_event for all to tenantry_app
  using      (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid);
grant select, insert on audit_event to tenantry_app;

grant insert on platform_audit to tenantry_app;

-- Answers of methods without a tenant belong to their caller.
alter table idempotency enable row level security;
alter table idempotency force row level security;
create policy tenant_or_caller on idempotency for all to tenantry_app
  using (
    tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid
    or (tenant_id = '00000000-0000-0000-0000-000000000000'
        and caller_id = nullif(current_setting('tenantry.user', true), '')::uuid))
  with check (
    tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid
    or (tenant_id = '00000000-0000-0000-0000-000000000000'
        and caller_id = nullif(current_setting('tenantry.user', true), '')::uuid));
grant select, insert, update, delete on idempotency to tenantry_app;

alter table change enable row level security;
alter table change force row level security;
create policy feed_write on change for insert to tenantry_app
  with check (tenant_id is null or tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid);
create policy feed_read on change for select to tenantry_system using (true);
grant insert on change to tenantry_app;
grant usage on sequence change_seq to tenantry_app;
grant select on change to tenantry_system;

grant select, insert on master_key to tenantry_app;
grant select, insert on signing_key to tenantry_app;
grant select, insert on platform_key to tenantry_app;
grant select (platform_key_id, kind, key_id, digest, display_name, permissions, created_at, expires_at, revoked_at) on platform_key to tenantry_system;
grant select, insert, update on rpc_rate to tenantry_app;
grant select on expected_policy to tenantry_app, tenantry_system;
