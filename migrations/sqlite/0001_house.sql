-- The first schema, for SQLite: the tables of ../postgres/0001_house.sql without roles and policies, which one embedded
-- process does not need. Times are microseconds since 1970, UUIDs 16-byte blobs.

-- ---- people -----------------------------------------------------------------------------------------------------

create table user_account (
  user_id blob primary key,
  email text not null,
  display_name text not null,
  status integer not null, -- 1 active, 2 disabled
  session_epoch integer not null, -- sessions of an older epoch are dead
  default_tenant_id blob,
  created_at integer not null,
  updated_at integer not null
) strict;
create unique index user_account_email on user_account (email);

create table credential (
  user_id blob primary key,
  password_hash text not null, -- PHC string
  updated_at integer not null
) strict;

create table device (
  user_id blob not null,
  digest blob not null, -- SHA-256 of the device token
  created_at integer not null,
  seen_at integer not null,
  primary key (user_id, digest)
) strict;

create table session (
  user_id blob not null,
  session_id blob not null,
  epoch integer not null,
  active_tenant_id blob,
  auth_time integer not null,
  created_at integer not null,
  absolute_expires_at integer not null,
  revoked_at integer,
  revoke_reason text,
  primary key (user_id, session_id)
) strict;

-- ---- tenants ----------------------------------------------------------------------------------------------------

create table tenant (
  tenant_id blob primary key,
  slug text not null,
  display_name text not null,
  status integer not null, -- 3 active, 4 suspended, 6 deleted; as in access.proto
  suspend_reason text,
  suspended_by integer, -- caller kind; as in access.proto
  plan text not null,
  version integer not null,
  created_at integer not null,
  updated_at integer not null,
  deleted_at integer,
  purge_at integer
) strict;

-- Slugs are public and unique on the whole platform, so they live in a table of their own.
create table tenant_slug (
  slug text not null primary key,
  tenant_id blob not null references tenant (tenant_id)
) strict;
create index tenant_slug_tenant on tenant_slug (tenant_id);

create table membership (
  tenant_id blob not null references tenant (tenant_id),
  membership_id blob not null, -- new at each join
  user_id blob not null,
  role text not null,
  status integer not null, -- 1 active, 2 suspended, 3 removed
  version integer not null,
  joined_at integer not null,
  updated_at integer not null,
  primary key (tenant_id, membership_id)
) strict;
create unique index membership_user on membership (tenant_id, user_id) where status <> 3;
create index membership_of_user on membership (user_id, tenant_id) where status <> 3;

-- ---- usage ------------------------------------------------------------------------------------------------------

create table quota_account (
  tenant_id blob not null references tenant (tenant_id),
  metric text not null,
  period_start integer not null,
  committed integer not null check (committed >= 0),
  primary key (tenant_id, metric, period_start)
) strict;

create table usage_event (
  tenant_id blob not null references tenant (tenant_id),
  key text not null, -- idempotency key, or one of the server's
  payload_hash blob not null,
  verdict integer not null, -- 1 admitted, 2 refused
  charges text not null, -- json: metric -> amount; {} when refused
  answer text not null, -- json: what the caller was told
  decided_at integer not null,
  primary key (tenant_id, key)
) strict;

-- ---- what every mutation leaves behind --------------------------------------------------------------------------

create table audit_event (
  tenant_id blob not null,
  event_id blob not null,
  at integer not null,
  actor_kind integer not null, -- caller kind; as in access.proto
  actor_id blob,
  on_behalf_of blob, -- the user whom a service acted for
  action text not null, -- Service/Method
  subject_id blob,
  changes text not null, -- json: field -> {before, after}
  request_id text not null,
  source text,
  primary key (tenant_id, event_id)
) strict;

create table platform_audit (
  event_id blob primary key,
  at integer not null,
  actor_kind integer not null,
  actor_id blob,
  on_behalf_of blob,
  action text not null,
  subject_id blob,
  changes text not null,
  request_id text not null,
  source text
) strict;

create table idempotency (
  tenant_id blob not null, -- nil when the method has no tenant
  caller_kind integer not null,
  caller_id blob not null,
  method text not null,
  request_hash blob not null, -- SHA-256 of request_id
  body_mac blob not null,
  answer blob not null, -- sealed under a key derived from request_id
  expires_at integer not null, -- of the answer
  created_at integer not null,
  primary key (tenant_id, caller_kind, caller_id, method, request_hash)
) strict;

-- The change feed. One writer at a time orders commits, so whoever has seen n has seen everything up to n. Keys only,
-- never values.
create table change (
  seq integer not null,
  ord integer not null, -- several rows of one transaction share seq
  nonce integer not null, -- random per transaction
  at integer not null, -- for people and retention; never compared
  kind integer not null,
  tenant_id blob,
  key1 blob,
  key2 blob,
  key_hash blob, -- host, slug, key digest: first 16 bytes of SHA-256
  primary key (seq, ord)
) strict;
insert into change values (0, 0, 0, 0, 0, null, null, null, null); -- never empty

-- ---- the platform -----------------------------------------------------------------------------------------------

create table master_key (
  kid integer primary key,
  check_value blob not null -- HMAC(key, "tenantry"): is this the right key file?
) strict;

create table signing_key (
  kid text primary key,
  state text not null, -- current
  public_key blob not null,
  sealed blob not null, -- PKCS#8, under the master key
  created_at integer not null
) strict;
create unique index signing_key_current on signing_key (state) where state = 'current';

create table platform_key (
  platform_key_id blob primary key,
  kind integer not null, -- caller kind; as in access.proto
  key_id text not null, -- the public part of the key
  digest blob not null, -- SHA-256 of the whole key
  display_name text not null,
  permissions text not null, -- json array
  created_at integer not null,
  expires_at integer,
  revoked_at integer
) strict;
create unique index platform_key_key_id on platform_key (key_id);

create table rpc_rate (
  method text not null,
  subject text not null, -- whose calls are counted
  hits blob not null, -- times of the counted calls, 8 bytes each
  updated_at integer not null,
  primary key (method, subject)
) strict;
