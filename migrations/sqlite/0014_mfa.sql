-- The second step of a sign-in. For SQLite: the tables of ../postgres/0014_mfa.sql.

create table totp (
  user_id      blob    primary key,
  sealed       blob    not null,                       -- the authenticator's secret, under the master key
  confirmed_at integer,                                -- none while it is being set up
  last_step    integer not null,                       -- of the newest code that was used: each works once
  created_at   integer not null
) strict;

create table recovery_code (
  user_id    blob    not null,
  digest     blob    not null,                         -- SHA-256
  created_at integer not null,
  used_at    integer,
  primary key (user_id, digest)
) strict;

-- Sign-ins that wait for their second step, with what becomes of them then.
create table mfa_challenge (
  user_id          blob    not null,
  digest           blob    not null,                   -- SHA-256 of the token
  epoch            integer not null,                   -- of the account, when the first step was taken
  methods          text    not null,
  wanted_tenant_id blob,
  bound_tenant_id  blob,
  remember         integer not null,
  device_name      text    not null,
  user_agent       text    not null,
  attempts         integer not null,
  created_at       integer not null,
  expires_at       integer not null,
  used_at          integer,
  primary key (user_id, digest)
) strict;

-- Whether a tenant asks its members for a second step: 1 yes, 0 no, none when it does not say.
alter table tenant_settings add column mfa_required integer
  generated always as (json_extract(body, '$.security.mfa_required')) virtual;
