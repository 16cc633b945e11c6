// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A file system that the host shares (virtiofs).
 *
 *   fs begin TAG              mount it, and hold its file "formula" open in the background
 *   fs check WORD PAGE        read that page by the file held open, and by its name; write
 *                             WORD into the file "said"
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "device.h"
#include "formula.h"

#define PLACE		"/run/shared-files"
#define FORMULA		PLACE "/formula"
#define SAID		PLACE "/said"

/* Read past the page cache: from who serves it. */
static int read_right(int fd, uint64_t page)
{
	static uint64_t words[PAGE_WORDS];
	uint64_t sum;

	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	errno = 0;
	if (pread(fd, words, sizeof(words), page * PAGE_BYTES) != sizeof(words))
		return errno ? errno : EIO;
	return page_check(words, page_key(DISK_SEED, page, 0), &sum) == PAGE_WORDS ? 0 : EBADMSG;
}

static void hold(struct shared *shared, void *argument)
{
	int fd = *(int *)argument;
	uint64_t carried_out = 0;

	for (;;) {
		if (shared->order != carried_out) {
			carried_out = shared->order;
			shared->failed = read_right(fd, shared->word);
			__sync_synchronize();
			shared->done++;
		}
		breathe();
	}
}

static void run_fs(int argc, char **argv)
{
	struct shared *shared;
	int fd, failed;

	if (argc < 2)
		unable("expected: fs begin TAG, or fs check WORD PAGE");
	if (!strcmp(argv[0], "begin")) {
		mkdir(PLACE, 0755);
		if (mount(argv[1], PLACE, "virtiofs", MS_NOSUID | MS_NODEV, NULL))
			wrong("mounting %s: %s", argv[1], strerror(errno));
		fd = open(FORMULA, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			wrong(FORMULA ": %s", strerror(errno));
		failed = read_right(fd, 0);
		if (failed)
			wrong("reading " FORMULA ": %s", strerror(failed));
		in_background("files", hold, &fd);
		did("%s is mounted, and a file is open", argv[1]);
		return;
	}
	shared = shared_of("files");
	if (!shared || argc != 3)
		unable("nothing is mounted");
	give_order(shared, shared->done + 1, number_word(argv[2]));
	fd = open(FORMULA, O_RDONLY | O_CLOEXEC);
	failed = fd < 0 ? errno : read_right(fd, number_word(argv[2]));
	if (failed)
		wrong("reading " FORMULA ": %s", strerror(failed));
	close(fd);
	fd = open(SAID, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0 || write(fd, argv[1], strlen(argv[1])) != (ssize_t)strlen(argv[1]) || fsync(fd))
		wrong("writing " SAID ": %s", strerror(errno));
	close(fd);
	did("a file that was open is right, one was opened, and one was written");
}

DEVICE(fs, run_fs);
