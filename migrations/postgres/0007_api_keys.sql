-- API keys of tenants and of their members; rotation and last use of the platform's own keys. Run as tenantry_owner
-- with search_path = tenantry.

create table api_key (
  tenant_id     uuid        not null references tenant (tenant_id),
  api_key_id    uuid        not null,
  kind          bigint      not null,                  -- 6 the tenant's own, 7 a member's; as CallerKind in access.proto
  key_id        text        not null collate "C", -- the public part of the key
  digest        bytea       not null,                  -- SHA-256 of the whole key
  last4         text        not null,                  -- how it ends, for people to tell keys apart
  old_digest    bytea,                                 -- of the key before a rotation,
  old_ends_at   timestamptz,                           -- which is good until then
  user_id       uuid,                                  -- of a member's key: whose,
  membership_id uuid,                                  -- and in which stay, with which it dies
  display_name  text        not null,
  permissions   text        not null,                  -- json array
  aal           bigint      not null,                  -- how surely the maker had proven who they are
  created_by    uuid,                                  -- the user or key that made it
  version       bigint      not null,
  created_at    timestamptz not null,
  updated_at    timestamptz not null,
  expires_at    timestamptz,
  revoked_at    timestamptz,
  last_used_at  timestamptz,                           -- to the minute
  primary key (tenant_id, api_key_id)
);
create unique index api_key_key_id on api_key (key_id);

alter table api_key enable row level security;
alter table api_key force row level security;
create policy tenant_only on api_key for all to tenantry_app
  using      (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid);
create policy system_read on api_key for select to tenantry_system using (true);
grant select, insert, update, delete on api_key to tenantry_app;
grant select on api_key to tenantry_system;

alter table platform_key add column last4 text not null default '';
alter table platform_key add column old_digest bytea;
alter table platform_key add column old_ends_at timestamptz;
alter table platform_key add column last_used_at timestamptz;          -- to the minute
alter table platform_key add column scope text not null default 'all'; -- of an operator's key: read, support, all
grant update on platform_key to tenantry_app;
grant select (last4, old_digest, old_ends_at, last_used_at, scope) on platform_key to tenantry_system;
