-- What an invitation proves, and who answers for it. For SQLite: the columns of ../postgres/0015_invitation_proof.sql.

-- Whether the token that opens it went by mail: 1 yes. Whoever has that one has read the address's mail.
alter table invitation add column mailed integer not null default 0;
-- The tenant's key that made it or sent it last, none for people and the platform.
alter table invitation add column inviter_key_id blob;
