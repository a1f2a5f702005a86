-- Accounts: their own data, links that were sent to their addresses, counted attempts.

alter table user_account add column version integer not null default 1;
alter table user_account add column locale text not null default '';
alter table user_account add column email_verified_at integer; -- status: 3 deleted, besides those of before

-- When the person chose the password; updated_at is also of a new hash of the same one.
alter table credential add column changed_at integer;

-- What opens by a link in a mail, one of a kind a person: a newer one takes the place of an older.
create table mail_link (
  user_id    blob    not null,
  purpose    integer not null,                             -- 1 reset, 2 proof of address, 3 change of address, 4 sign-up
  digest     blob    not null,                             -- SHA-256 of the token
  body       text    not null,                             -- json: what it is about
  created_at integer not null,
  expires_at integer not null,
  primary key (user_id, purpose)
) strict;
create unique index mail_link_digest on mail_link (digest);

-- Counted attempts at passwords and requests for mail. `subject` is a MAC, which names nobody.
create table attempt (
  subject    blob    primary key not null,
  hits       blob    not null,                             -- times of the counted attempts, 8 bytes each
  updated_at integer not null
) strict;
create index attempt_updated on attempt (updated_at);

-- What tenants ask of their members' passwords: the strictest of a person's tenants counts.
alter table tenant_settings add column max_sign_in_attempts integer
  generated always as (json_extract(body, '$.security.max_sign_in_attempts')) virtual;
alter table tenant_settings add column password_expiry_days integer
  generated always as (json_extract(body, '$.security.password_expiry_days')) virtual;
alter table tenant_settings add column sign_in_methods text
  generated always as (json_extract(body, '$.security.sign_in_methods')) virtual;
