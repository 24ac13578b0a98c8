-- `only` is a word of SQL elsewhere.
ALTER TABLE seal RENAME COLUMN only TO number;
