// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A database at work, for a guest that is about to be migrated.
 *
 *   load database SEED BYTES [keep=BYTES] [rate=TRANSACTIONS]
 *
 * A table of accounts, some BYTES large, lies on the guest's disk.  Transactions
 * move money between two accounts drawn at random, `rate` a second at most (0: as
 * many as go).  Each row carries a text that follows from its number and its
 * version, so whatever is read is checked before it is changed; in the end no money
 * may be lost, every row must be right, and SQLite must find its own pages in order.
 *
 * It needs -DWITH_SQLITE and -lsqlite3 -lm; without, the program has no such kind.
 */
#ifdef WITH_SQLITE
#define _GNU_SOURCE
#include <sqlite3.h>

#include "serve.h"
#include "work.h"
#include "workload.h"

#ifndef FILE_NAME
#define FILE_NAME	"/var/lib/freepage.db"
#endif
#define TEXT_WORDS	48
#define TEXT_BYTES	(TEXT_WORDS * 8)
#define ROW_BYTES	(TEXT_BYTES + 40)	/* with what SQLite adds, about */

static struct {
	sqlite3 *db;
	sqlite3_stmt *begin, *commit, *get, *put;
	uint64_t seed, rows, rate;
	uint64_t keep;
	double last;
	struct region kept;
	int running;
} base = { .running = 1, .keep = 16 * MIB };

static void stop(void);
static struct tally verify(void);
static struct server server = { .stop = stop, .verify = verify };

static void must(int status, int wanted, const char *what)
{
	if (status != wanted)
		die("%s: %s", what, sqlite3_errmsg(base.db));
}

static void text_of(uint64_t row, uint64_t version, uint64_t *text)
{
	uint64_t key = page_key(base.seed, row, version);
	unsigned int i;

	for (i = 0; i < TEXT_WORDS; i++)
		text[i] = page_word(key, i);
}

static void run(const char *sql)
{
	must(sqlite3_exec(base.db, sql, NULL, NULL, NULL), SQLITE_OK, sql);
}

static sqlite3_stmt *prepared(const char *sql)
{
	sqlite3_stmt *statement;

	must(sqlite3_prepare_v2(base.db, sql, -1, &statement, NULL), SQLITE_OK, sql);
	return statement;
}

static void step(sqlite3_stmt *statement)
{
	must(sqlite3_step(statement), SQLITE_DONE, sqlite3_sql(statement));
	sqlite3_reset(statement);
}

static void put(uint64_t row, uint64_t version, int64_t balance)
{
	uint64_t text[TEXT_WORDS];

	text_of(row, version, text);
	sqlite3_bind_int64(base.put, 1, row);
	sqlite3_bind_int64(base.put, 2, version);
	sqlite3_bind_int64(base.put, 3, balance);
	sqlite3_bind_blob(base.put, 4, text, sizeof(text), SQLITE_TRANSIENT);
	step(base.put);
}

/* Returns whether the row of this statement is what it must be. */
static int right(sqlite3_stmt *statement, uint64_t row)
{
	uint64_t text[TEXT_WORDS];

	text_of(row, sqlite3_column_int64(statement, 0), text);
	return sqlite3_column_bytes(statement, 2) == TEXT_BYTES &&
	       !memcmp(sqlite3_column_blob(statement, 2), text, TEXT_BYTES);
}

/* Take `amount` from an account; what is found there is checked first. */
static void change(uint64_t row, int64_t amount)
{
	uint64_t version = 0;
	int64_t balance = 0;
	int good;

	sqlite3_bind_int64(base.get, 1, row);
	good = sqlite3_step(base.get) == SQLITE_ROW && right(base.get, row);
	if (good) {
		version = sqlite3_column_int64(base.get, 0);
		balance = sqlite3_column_int64(base.get, 1);
	}
	sqlite3_reset(base.get);
	server.checked++;
	server.bad += !good;
	if (good)
		put(row, version + 1, balance - amount);
}

static void transaction(void)
{
	uint64_t a = mix64(base.seed + (2 * ++server.steps) * GOLDEN);
	uint64_t b = mix64(base.seed + (2 * server.steps + 1) * GOLDEN);
	int64_t amount = a >> 48;

	step(base.begin);
	change(a % base.rows, amount);
	change(b % base.rows, -amount);
	step(base.commit);
	work_done(1);
}

/* As many as are due since the last call, for at most a twentieth of a second. */
static void work_off(const struct pollfd *in, int ready)
{
	int64_t due = !base.running ? 0 : base.rate ? work_due(base.rate, &base.last) : INT64_MAX;
	double begin = now();

	(void)in, (void)ready;
	while (due-- > 0 && now() - begin < 0.05)
		transaction();
}

static void make(uint64_t bytes)
{
	uint64_t row;

	unlink(FILE_NAME);
	unlink(FILE_NAME "-wal");
	unlink(FILE_NAME "-shm");
	must(sqlite3_open(FILE_NAME, &base.db), SQLITE_OK, FILE_NAME);
	run("PRAGMA journal_mode=WAL");
	run("PRAGMA synchronous=NORMAL");
	run("PRAGMA cache_size=-16384");
	run("CREATE TABLE account (id INTEGER PRIMARY KEY, version INTEGER, balance INTEGER, text BLOB)");
	base.begin = prepared("BEGIN IMMEDIATE");
	base.commit = prepared("COMMIT");
	base.get = prepared("SELECT version, balance, text FROM account WHERE id = ?");
	base.put = prepared("INSERT OR REPLACE INTO account VALUES (?, ?, ?, ?)");
	base.rows = bytes / ROW_BYTES;
	if (base.rows < 2)
		die("a database of %" PRIu64 " bytes has no two accounts", bytes);
	step(base.begin);
	for (row = 0; row < base.rows; row++)
		put(row, 0, 0);
	step(base.commit);
}

/* Rows that are wrong, or missing; money that was lost; what SQLite finds. */
static uint64_t check(void)
{
	sqlite3_stmt *all = prepared("SELECT version, balance, text, id FROM account ORDER BY id");
	sqlite3_stmt *whole = prepared("PRAGMA quick_check");
	uint64_t row = 0, bad = 0;
	int64_t money = 0;
	int status;

	while ((status = sqlite3_step(all)) == SQLITE_ROW) {
		bad += (uint64_t)sqlite3_column_int64(all, 3) != row || !right(all, row);
		money += sqlite3_column_int64(all, 1);
		row++;
	}
	sqlite3_finalize(all);
	bad += status != SQLITE_DONE;
	bad += row != base.rows;
	bad += money != 0;
	if (sqlite3_step(whole) != SQLITE_ROW ||
	    strcmp((const char *)sqlite3_column_text(whole, 0), "ok"))
		bad++;
	sqlite3_finalize(whole);
	return bad;
}

static void stop(void)
{
	base.running = 0;
}

static struct tally verify(void)
{
	server.bad += check();
	return check_all(&base.kept);
}

static int events(struct pollfd *in, int *timeout)
{
	(void)in;
	*timeout = !base.running ? -1 : base.rate ? 5 : 0;
	return 0;
}

static uint64_t load(const struct load *load, struct tally *t)
{
	base.seed = load->seed;
	demand_size(base.keep);
	region_load(&base.kept, base.seed, base.keep, 1, t);
	make(load->bytes);
	base.last = now();
	return 0;
}

static const struct workload_option options[] = {
	{ "keep", .number = &base.keep }, { "rate", .number = &base.rate }, { 0 },
};

static const struct workload_ops ops = {
	.server = &server, .options = options, .load = load, .events = events, .work = work_off,
};

static int run_database(int argc, char **argv)
{
	return workload_main(argc, argv, &ops);
}

WORKLOAD(database, run_database);

#endif /* WITH_SQLITE */
