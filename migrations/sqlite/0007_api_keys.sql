-- API keys of tenants and of their members; rotation and last use of the platform's own keys. For SQLite: the tables of
-- ../postgres/0007_api_keys.sql.

create table api_key (
  tenant_id     blob    not null references tenant (tenant_id),
  api_key_id    blob    not null,
  kind          integer not null,                      -- 6 the tenant's own, 7 a member's; as CallerKind in access.proto
  key_id        text    not null,                      -- the public part of the key
  digest        blob    not null,                      -- SHA-256 of the whole key
  last4         text    not null,                      -- how it ends, for people to tell keys apart
  old_digest    blob,                                  -- of the key before a rotation,
  old_ends_at   integer,                               -- which is good until then
  user_id       blob,                                  -- of a member's key: whose,
  membership_id blob,                                  -- and in which stay, with which it dies
  display_name  text    not null,
  permissions   text    not null,                      -- json array
  aal           integer not null,                      -- how surely the maker had proven who they are
  created_by    blob,                                  -- the user or key that made it
  version       integer not null,
  created_at    integer not null,
  updated_at    integer not null,
  expires_at    integer,
  revoked_at    integer,
  last_used_at  integer,                               -- to the minute
  primary key (tenant_id, api_key_id)
) strict;
create unique index api_key_key_id on api_key (key_id);

alter table platform_key add column last4 text not null default '';
alter table platform_key add column old_digest blob;
alter table platform_key add column old_ends_at integer;
alter table platform_key add column last_used_at integer;              -- to the minute
alter table platform_key add column scope text not null default 'all'; -- of an operator's key: read, support, all
