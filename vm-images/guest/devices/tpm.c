// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A TPM.  Commands are those of the TPM 2.0 library, part 3.
 *
 *   tpm extend DIGEST    register 16 of the SHA-256 bank before and after it is extended by
 *                        these 32 bytes; the value is both
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "device.h"

#define TPM		"/dev/tpm0"
#define DIGEST		32
#define REGISTER	16

static const unsigned char read_command[] = {
	0x80, 0x01, 0, 0, 0, 20, 0, 0, 0x01, 0x7e,	/* no sessions, size, TPM2_PCR_Read */
	0, 0, 0, 1, 0, 0x0b, 3, 0, 0, 1 << (REGISTER - 16),	/* one bank: SHA-256, which registers */
};

static const unsigned char extend_command[] = {
	0x80, 0x02, 0, 0, 0, 65, 0, 0, 0x01, 0x82,	/* sessions, size, TPM2_PCR_Extend */
	0, 0, 0, REGISTER,
	0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0,	/* the empty password */
	0, 0, 0, 1, 0, 0x0b,				/* one digest: SHA-256 */
};

static ssize_t ask(int fd, const unsigned char *command, size_t size, unsigned char *answer, size_t room)
{
	ssize_t n;

	if (write(fd, command, size) != (ssize_t)size)
		wrong("writing to " TPM ": %s", strerror(errno));
	n = read(fd, answer, room);
	if (n < 10)
		wrong("reading " TPM ": %s", n < 0 ? strerror(errno) : "too short an answer");
	if (answer[6] | answer[7] | answer[8] | answer[9])
		wrong("it answers with the error %#x", answer[8] << 8 | answer[9]);
	return n;
}

static void read_register(int fd)
{
	unsigned char answer[256];
	ssize_t n = ask(fd, read_command, sizeof(read_command), answer, sizeof(answer));

	/* The digest is the last thing in the answer. */
	if (n < 10 + 4 + 10 + 4 + 2 + DIGEST)
		wrong("it has no SHA-256 bank");
	value(answer + n - DIGEST, DIGEST);
}

static void run_tpm(int argc, char **argv)
{
	unsigned char command[sizeof(extend_command) + DIGEST], answer[256];
	unsigned int byte;
	int fd, i;

	if (argc != 2 || strlen(argv[1]) != 2 * DIGEST)
		unable("expected: tpm extend DIGEST");
	memcpy(command, extend_command, sizeof(extend_command));
	for (i = 0; i < DIGEST; i++) {
		if (sscanf(argv[1] + 2 * i, "%2x", &byte) != 1)
			unable("not a digest: %s", argv[1]);
		command[sizeof(extend_command) + i] = byte;
	}
	fd = open(TPM, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		wrong(TPM ": %s", strerror(errno));
	read_register(fd);
	ask(fd, command, sizeof(command), answer, sizeof(answer));
	read_register(fd);
	did("register %d was extended", REGISTER);
}

DEVICE(tpm, run_tpm);
