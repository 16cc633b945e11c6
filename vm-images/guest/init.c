// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The first process of a guest under test.
 *
 * It does what a test needs and no more, because every run waits for it: mount,
 * load the modules that /etc/modules.list names, bring up the network, start the
 * agent.  No shell runs before the guest is ready.  The ssh port is served like
 * inetd did it: the socket listens before the ready word is spoken, and a
 * dropbear is started for each connection, so a client never finds the door
 * closed and a boot that needs no ssh does not pay for it.
 *
 * Anything that keeps the guest from becoming what was asked for is fatal (boot.h).
 *
 * Words of the kernel command line:
 *   freepage.driver=info|stock|none  which balloon driver; default info
 *   freepage.params=P=V[,P=V]        parameters of the driver's module
 *   freepage.modules=NAME[,NAME]     more modules to load, out of those in /lib/modules
 *   freepage.control=NAME            the serial port of the agent; default ttyS1
 *   freepage.ip=A.B.C.D/N            address of eth0
 *   freepage.mac=XX:XX:XX:XX:XX:XX   of the NIC that gets it, if that may not be eth0
 *   freepage.gw=A.B.C.D              default route
 *   freepage.init=nothing            ready at once, and nothing else: the
 *                                    yardstick for the time that a boot takes
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <net/if.h>
#include <net/route.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "boot.h"
#include "nic.h"
#include "words.h"

#define AGENT		"/bin/agent"
#define DROPBEAR	"/usr/sbin/dropbear"
#define MAX_SESSIONS	16
/* For its NIC to come: a driver may wait for another one. */
#define NIC_SECONDS	20

static char cmdline[4096];
/* The serial port at whose other end the host is. */
static char control[32] = "/dev/ttyS1";

/* Who serves a connection to the ssh port. */
static struct {
	pid_t pids[MAX_SESSIONS];
	int count;
} sessions;

/* The value of a word of the command line, or NULL. */
static const char *option(const char *name, char *value, size_t size)
{
	size_t length = strlen(name);
	const char *word = cmdline;

	while (*word) {
		size_t n = strcspn(word, " \n");

		if (n > length && !strncmp(word, name, length) && word[length] == '=') {
			snprintf(value, size, "%.*s", (int)(n - length - 1), word + length + 1);
			return value;
		}
		word += n;
		word += strspn(word, " \n");
	}
	return NULL;
}

static void read_cmdline(void)
{
	if (read_file("/proc/cmdline", cmdline, sizeof(cmdline)))
		fatal("cannot read the command line: %s", strerror(errno));
}

/* Those that this guest has a device for. */
static void load_more(void)
{
	char names[256] = "", *name, *rest = names;

	option("freepage.modules", names, sizeof(names));
	while ((name = strsep(&rest, ",")))
		if (*name)
			load_module(name, "");
}

static void load_driver(const char *driver)
{
	char parameters[256] = "", *comma = parameters;

	/* The kernel wants blanks between them, which a word cannot have. */
	option("freepage.params", parameters, sizeof(parameters));
	while ((comma = strchr(comma, ',')))
		*comma = ' ';
	if (!strcmp(driver, "info"))
		load_module("freepage_balloon", parameters);
	else if (!strcmp(driver, "stock"))
		load_module("virtio_balloon", parameters);
	else if (strcmp(driver, "none"))
		fatal("freepage.driver=%s: expected info, stock or none", driver);
}

static void interface(int fd, const char *name, struct in_addr address, int bits)
{
	struct ifreq request = { 0 };
	struct sockaddr_in *in = (struct sockaddr_in *)&request.ifr_addr;

	strncpy(request.ifr_name, name, IFNAMSIZ - 1);
	in->sin_family = AF_INET;
	in->sin_addr = address;
	if (ioctl(fd, SIOCSIFADDR, &request))
		fatal("address of %s: %s (is there a NIC and its module?)", name, strerror(errno));
	in->sin_addr.s_addr = htonl(bits ? ~0U << (32 - bits) : 0);
	if (ioctl(fd, SIOCSIFNETMASK, &request))
		fatal("netmask of %s: %s", name, strerror(errno));
	request.ifr_flags = IFF_UP | IFF_RUNNING;
	if (ioctl(fd, SIOCSIFFLAGS, &request))
		fatal("cannot bring up %s: %s", name, strerror(errno));
}

static void network(void)
{
	char text[64], mac[64], name[IFNAMSIZ] = "eth0", *slash, *end;
	struct in_addr address;
	long bits;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		fatal("no network: %s", strerror(errno));
	interface(fd, "lo", (struct in_addr){ htonl(INADDR_LOOPBACK) }, 8);
	if (option("freepage.ip", text, sizeof(text))) {
		slash = strchr(text, '/');
		if (slash)
			*slash = '\0';
		bits = slash ? strtol(slash + 1, &end, 10) : -1;
		if (!slash || *end || bits < 1 || bits > 32 || !inet_aton(text, &address))
			fatal("freepage.ip: expected A.B.C.D/N");
		if (nic_await(option("freepage.mac", mac, sizeof(mac)), name, NIC_SECONDS))
			fatal("there is no NIC %s (is there its module?)", name);
		interface(fd, name, address, bits);
	}
	if (option("freepage.gw", text, sizeof(text))) {
		struct rtentry route = { .rt_flags = RTF_UP | RTF_GATEWAY };
		struct sockaddr_in *to = (struct sockaddr_in *)&route.rt_gateway;

		route.rt_dst.sa_family = AF_INET;
		route.rt_genmask.sa_family = AF_INET;
		to->sin_family = AF_INET;
		if (!inet_aton(text, &to->sin_addr))
			fatal("freepage.gw: expected A.B.C.D");
		if (ioctl(fd, SIOCADDRT, &route))
			fatal("default route: %s", strerror(errno));
	}
	close(fd);
}

/* The socket of the ssh port, or -1 where the image has no ssh server. */
static int listen_ssh(void)
{
	struct sockaddr_in any = { .sin_family = AF_INET, .sin_port = htons(22) };
	int fd, on = 1;

	if (access(DROPBEAR, X_OK))
		return -1;
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
	    bind(fd, (struct sockaddr *)&any, sizeof(any)) || listen(fd, 8))
		fatal("ssh port: %s", strerror(errno));
	return fd;
}

/* Children start with a clean signal mask and, but for the agent, mortal. */
static pid_t child(const char *oom_score)
{
	sigset_t none;
	pid_t pid = fork();
	int fd;

	if (pid)
		return pid;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setsid();
	fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd >= 0) {
		if (write(fd, oom_score, strlen(oom_score)) < 0)
			say("oom_score_adj: %s", strerror(errno));
		close(fd);
	}
	return 0;
}

static pid_t serve_ssh(int listener)
{
	const char *argv[32] = { DROPBEAR, "-i", "-s" };
	int connection = accept4(listener, NULL, NULL, 0);
	size_t argc = 3, i;
	glob_t keys;
	pid_t pid;

	if (connection < 0)
		return -1;
	pid = child("0");
	if (pid) {
		close(connection);
		return pid;
	}
	if (!glob("/etc/dropbear/*host*key*", 0, NULL, &keys))
		for (i = 0; i < keys.gl_pathc && argc < 30; i++) {
			argv[argc++] = "-r";
			argv[argc++] = keys.gl_pathv[i];
		}
	argv[argc] = NULL;
	dup2(connection, STDIN_FILENO);
	dup2(connection, STDOUT_FILENO);
	close(connection);
	setenv("PATH", "/bin:/sbin:/usr/bin:/usr/sbin", 1);
	setenv("HOME", "/root", 1);
	execv(argv[0], (char **)argv);
	_exit(127);
}

static pid_t start_agent(const char *driver)
{
	pid_t pid = child("-1000");

	if (pid < 0)
		fatal("fork: %s", strerror(errno));
	if (pid)
		return pid;
	execl(AGENT, AGENT, "--tty", control, "--driver", driver, (char *)NULL);
	say("%s: %s", AGENT, strerror(errno));
	_exit(127);
}

static void say_ready_and_wait(void)
{
	static const char word[] = "ready {\"init\":\"nothing\"}\n";
	int fd = open(control, O_RDWR | O_NOCTTY | O_CLOEXEC);

	if (fd < 0 || write(fd, word, sizeof(word) - 1) < 0)
		fatal("%s: %s", control, strerror(errno));
	for (;;)
		pause();
}

static void session_began(pid_t pid)
{
	if (pid > 0)
		sessions.pids[sessions.count++] = pid;
}

/* Was it one at all?  Most of what dies here lost its parent, and was left to us. */
static void session_ended(pid_t pid)
{
	int i;

	for (i = 0; i < sessions.count; i++)
		if (sessions.pids[i] == pid) {
			sessions.pids[i] = sessions.pids[--sessions.count];
			return;
		}
}

/* Reap whatever dies; what the guest cannot be without takes it along. */
static void reap(pid_t agent)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid != agent) {
			session_ended(pid);
			continue;
		}
		if (WIFEXITED(status) && WEXITSTATUS(status) == AGENT_POWEROFF) {
			say("power off, as asked");
			power_off();
		}
		fatal("the agent ended with status 0x%x", status);
	}
}

int main(void)
{
	char driver[16] = "info", text[32];
	struct pollfd wait[2];
	sigset_t signals;
	pid_t agent;

	boot_begin("freepage-init");
	mount_one("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, NULL);
	mount_one("proc", "/proc", "proc", MS_NOSUID, NULL);
	read_cmdline();
	if (option("freepage.control", text, sizeof(text)))
		snprintf(control, sizeof(control), "/dev/%.20s", text);
	if (option("freepage.init", text, sizeof(text)) && !strcmp(text, "nothing"))
		say_ready_and_wait();

	mount_one("sysfs", "/sys", "sysfs", MS_NOSUID, NULL);
	mount_one("devpts", "/dev/pts", "devpts", MS_NOSUID, "mode=620,gid=5");
	mount_one("tmpfs", "/run", "tmpfs", MS_NOSUID, "mode=755");
	if (mount("debugfs", "/sys/kernel/debug", "debugfs", 0, NULL))
		say("no debugfs: %s", strerror(errno));
	option("freepage.driver", driver, sizeof(driver));
	load_modules("/etc/modules.list");
	/* Of the devices that the scenario gives the guest, if it gives it any. */
	load_modules("/etc/devices.list");
	load_more();
	load_driver(driver);
	network();

	sigfillset(&signals);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	wait[0] = (struct pollfd){ signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK), POLLIN, 0 };
	wait[1] = (struct pollfd){ listen_ssh(), POLLIN, 0 };
	agent = start_agent(driver);
	for (;;) {
		struct signalfd_siginfo drop[8];

		/* Too many sessions: new ones wait in the socket's backlog. */
		wait[1].events = sessions.count < MAX_SESSIONS ? POLLIN : 0;
		if (poll(wait, 2, -1) < 0)
			continue;
		if ((wait[0].revents & POLLIN) && read(wait[0].fd, drop, sizeof(drop)) < 0)
			say("signalfd: %s", strerror(errno));
		reap(agent);
		if (wait[1].revents & POLLIN)
			session_began(serve_ssh(wait[1].fd));
	}
}
