-- What an invitation proves, and who answers for it.

-- Whether the token that opens it went by mail: 1 yes. Whoever has that one has read the address's mail.
alter table invitation add column mailed bigint not null default 0;
-- The tenant's key that made it or sent it last, none for people and the platform.
alter table invitation add column inviter_key_id uuid;
