-- Accounts: their own data, links that were sent to their addresses, counted attempts. Run as tenantry_owner with
-- search_path = tenantry.

alter table user_account
  add column version           bigint not null default 1,
  add column locale            text   not null default '',
  add column email_verified_at timestamptz;                -- status: 3 deleted, besides those of before

-- When the person chose the password; updated_at is also of a new hash of the same one.
alter table credential add column changed_at timestamptz;
grant delete on credential to tenantry_app;

-- What opens by a link in a mail, one of a kind a person: a newer one takes the place of an older.
create table mail_link (
  user_id    uuid        not null,
  purpose    bigint      not null,                         -- 1 reset, 2 proof of address, 3 change of address, 4 sign-up
  digest     bytea       not null,                         -- SHA-256 of the token
  body       text        not null,                         -- json: what it is about
  created_at timestamptz not null,
  expires_at timestamptz not null,
  primary key (user_id, purpose)
);
create unique index mail_link_digest on mail_link (digest);

-- Counted attempts at passwords and requests for mail. `subject` is a MAC, which names nobody.
create table attempt (
  subject    bytea       primary key,
  hits       bytea       not null,                         -- times of the counted attempts, 8 bytes each
  updated_at timestamptz not null
);
create index attempt_updated on attempt (updated_at);

-- What tenants ask of their members' passwords: the strictest of a person's tenants counts.
alter table tenant_settings
  add column max_sign_in_attempts bigint
    generated always as ((replace(replace(body, '\\', ''), '\u0000', '')::jsonb -> 'security' ->> 'max_sign_in_attempts')::bigint) stored,
  add column password_expiry_days bigint
    generated always as ((replace(replace(body, '\\', ''), '\u0000', '')::jsonb -> 'security' ->> 'password_expiry_days')::bigint) stored,
  add column sign_in_methods text
    generated always as (replace(replace(body, '\\', ''), '\u0000', '')::jsonb -> 'security' ->> 'sign_in_methods') stored;
grant select (max_sign_in_attempts, password_expiry_days, sign_in_methods) on tenant_settings to tenantry_system;

-- ---- locks ------------------------------------------------------------------------------------------------------

alter table mail_link enable row level security;
alter table mail_link force row level security;
create policy user_only on mail_link for all to tenantry_app
  using      (user_id = nullif(current_setting('tenantry.user', true), '')::uuid)
  with check (user_id = nullif(current_setting('tenantry.user', true), '')::uuid);
create policy system_read on mail_link for select to tenantry_system using (true);
grant select, insert, update, delete on mail_link to tenantry_app;
grant select (user_id, purpose, digest, expires_at) on mail_link to tenantry_system;

grant select, insert, update, delete on attempt to tenantry_app;
