-- Sessions that a tenant has ended for itself, and signing keys that are rotated. Run as tenantry_owner with
-- search_path = tenantry.

-- What an administrator ends is the member's work in this tenant: the session goes on in others.
create table session_end (
  tenant_id  uuid        not null references tenant (tenant_id),
  user_id    uuid        not null,
  session_id uuid        not null,                     -- nil: all that had begun by then
  ended_at   timestamptz not null,
  primary key (tenant_id, user_id, session_id)
);
alter table session_end enable row level security;
alter table session_end force row level security;
create policy tenant_only on session_end for all to tenantry_app
  using      (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid)
  with check (tenant_id = nullif(current_setting('tenantry.tenant', true), '')::uuid);
create policy system_read on session_end for select to tenantry_system using (true);
grant select, insert, update, delete on session_end to tenantry_app;
grant select on session_end to tenantry_system;

-- next: published, does not sign yet; current: signs; retired: its last tokens are still good; gone: they are over;
-- revoked: withdrawn at once. The private half is wiped when a key has signed for the last time.
alter table signing_key
  add column current_at timestamptz,                   -- since when it signs or signed; of the first keys, since their birth
  add column retired_at timestamptz,
  add column over_at    timestamptz,                   -- when the last token that it signed is over
  add column revoked_at timestamptz;
create unique index signing_key_next on signing_key (state) where state = 'next';
grant update on signing_key to tenantry_app;
grant select (kid, state) on signing_key to tenantry_system;
