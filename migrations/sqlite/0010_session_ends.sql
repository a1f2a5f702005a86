-- Sessions that a tenant has ended for itself, and signing keys that are rotated.

-- What an administrator ends is the member's work in this tenant: the session goes on in others.
create table session_end (
  tenant_id blob not null references tenant (tenant_id),
  user_id blob not null,
  session_id blob not null, -- nil: all that had begun by then
  ended_at integer not null,
  primary key (tenant_id, user_id, session_id)
) strict;

-- next: published, does not sign yet; current: signs; retired: its last tokens are still good; gone: they are over;
-- revoked: withdrawn at once. The private half is wiped when a key has signed for the last time.
alter table signing_key add column current_at integer; -- since when it signs or signed; of the first keys, since their birth
alter table signing_key add column retired_at integer;
alter table signing_key add column over_at integer; -- when the last token that it signed is over
alter table signing_key add column revoked_at integer;
create unique index signing_key_next on signing_key (state) where state = 'next';
