-- Mail. For SQLite: the tables of ../postgres/0005_mail.sql.

alter table outbox add column sealed blob; -- the token of a link, under the master key; gone once sent
alter table outbox add column status integer not null default 1; -- 1 waiting, 2 sent, 3 given up
alter table outbox add column ended_at integer;
create index outbox_waiting on outbox (message_id) where status = 1;
create index outbox_message on outbox (message_id);

-- What is sent to a person by the platform: proofs of an address, resets. As outbox.
create table personal_outbox (
  user_id blob not null,
  message_id blob not null,
  template text not null,
  recipient text not null,
  payload text not null, -- json
  sealed blob,
  status integer not null,
  created_at integer not null,
  ended_at integer,
  primary key (user_id, message_id)
) strict;
create index personal_outbox_waiting on personal_outbox (message_id) where status = 1;
create index personal_outbox_message on personal_outbox (message_id);
