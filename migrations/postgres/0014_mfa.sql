-- The second step of a sign-in. Run as tenantry_owner with search_path = tenantry.

create table totp (
  user_id      uuid        primary key,
  sealed       bytea       not null,                   -- the authenticator's secret, under the master key
  confirmed_at timestamptz,                            -- none while it is being set up
  last_step    bigint      not null,                   -- of the newest code that was used: each works once
  created_at   timestamptz not null
);

create table recovery_code (
  user_id    uuid        not null,
  digest     bytea       not null,                     -- SHA-256
  created_at timestamptz not null,
  used_at    timestamptz,
  primary key (user_id, digest)
);

-- Sign-ins that wait for their second step, with what becomes of them then.
create table mfa_challenge (
  user_id          uuid        not null,
  digest           bytea       not null,               -- SHA-256 of the token
  epoch            bigint      not null,               -- of the account, when the first step was taken
  methods          text        not null,
  wanted_tenant_id uuid,
  bound_tenant_id  uuid,
  remember         bigint      not null,
  device_name      text        not null,
  user_agent       text        not null,
  attempts         bigint      not null,
  created_at       timestamptz not null,
  expires_at       timestamptz not null,
  used_at          timestamptz,
  primary key (user_id, digest)
);

alter table totp enable row level security;
alter table totp force row level security;
create policy user_only on totp for all to tenantry_app
  using      (user_id = nullif(current_setting('tenantry.user', true), '')::uuid)
  with check (user_id = nullif(current_setting('tenantry.user', true), '')::uuid);
create policy system_read on totp for select to tenantry_system using (true);
grant select, insert, update, delete on totp to tenantry_app;
grant select (user_id, confirmed_at) on totp to tenantry_system;

alter table recovery_code enable row level security;
alter table recovery_code force row level security;
create policy user_only on recovery_code for all to tenantry_app
  using      (user_id = nullif(current_setting('tenantry.user', true), '')::uuid)
  with check (user_id = nullif(current_setting('tenantry.user', true), '')::uuid);
grant select, insert, update, delete on recovery_code to tenantry_app;

alter table mfa_challenge enable row level security;
alter table mfa_challenge force row level security;
create policy user_only on mfa_challenge for all to tenantry_app
  using      (user_id = nullif(current_setting('tenantry.user', true), '')::uuid)
  with check (user_id = nullif(current_setting('tenantry.user', true), '')::uuid);
grant select, insert, update, delete on mfa_challenge to tenantry_app;

-- Whether a tenant asks its members for a second step: 1 yes, 0 no, none when it does not say.
alter table tenant_settings
  add column mfa_required bigint
    generated always as (case replace(replace(body, '\\', ''), '\u0000', '')::jsonb -> 'security' ->> 'mfa_required' when 'true' then 1 when 'false' then 0 end) stored;
grant select (mfa_required) on tenant_settings to tenantry_system;
