-- What decides on features is read into memory beside the rest of a decision: on PostgreSQL that needs a grant.

select 1;
