-- Sessions that are refreshed, and how long they may be. Run as tenantry_owner with search_path = tenantry.

-- Rows of before have no refresh token: they end with their access token.
alter table session
  add column kind            bigint      not null default 1,   -- 1 sign-in, 2 impersonation
  add column methods         text        not null default 'pwd',   -- how the person proved themselves, by blanks; as in RFC 8176
  add column aal             bigint      not null default 1,   -- authenticator assurance level: 1 one factor, 2 two
  add column bound_tenant_id uuid,                             -- opens this tenant alone
  add column remember        bigint      not null default 0,
  add column idle_expires_at timestamptz,
  add column refresh_gen     bigint      not null default 0,
  add column refresh_cur     bytea,                            -- SHA-256 of the token that is good
  add column refresh_prev    bytea,                            -- of the one before, until this one is used
  add column refresh_sealed  bytea,                            -- the one that is good, sealed under the one before
  add column refreshed_at    timestamptz,                      -- last use
  add column device_name     text        not null default '',
  add column user_agent      text        not null default '',
  add column source          text;                             -- address of the last use
grant delete on session to tenantry_app;
grant select (kind, methods, aal, bound_tenant_id, remember, idle_expires_at, created_at, refreshed_at, device_name, user_agent,
              source) on session to tenantry_system;

-- How long members stay signed in at most, where the tenant says so: the strictest of a person's tenants counts.
alter table tenant_settings
  add column session_length_seconds bigint
    generated always as ((replace(replace(body, '\\', ''), '\u0000', '')::jsonb -> 'security' ->> 'session_length_seconds')::bigint) stored;
create policy system_read on tenant_settings for select to tenantry_system using (true);
grant select (tenant_id, session_length_seconds) on tenant_settings to tenantry_system;
