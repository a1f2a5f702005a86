-- Sessions that are refreshed, and how long they may be.

-- Rows of before have no refresh token: they end with their access token.
alter table session add column kind integer not null default 1; -- 1 sign-in, 2 impersonation
alter table session add column methods text not null default 'pwd'; -- how the person proved themselves, by blanks; as in RFC 8176
alter table session add column aal integer not null default 1; -- authenticator assurance level: 1 one factor, 2 two
alter table session add column bound_tenant_id blob; -- opens this tenant alone
alter table session add column remember integer not null default 0;
alter table session add column idle_expires_at integer;
alter table session add column refresh_gen integer not null default 0;
alter table session add column refresh_cur blob; -- SHA-256 of the token that is good
alter table session add column refresh_prev blob; -- of the one before, until this one is used
alter table session add column refresh_sealed blob; -- the one that is good, sealed under the one before
alter table session add column refreshed_at integer; -- last use
alter table session add column device_name text not null default '';
alter table session add column user_agent text not null default '';
alter table session add column source text; -- address of the last use

-- How long members stay signed in at most, where the tenant says so: the strictest of a person's tenants counts.
alter table tenant_settings add column session_length_seconds integer
  generated always as (json_extract(body, '$.security.session_length_seconds')) virtual;
