// SPDX-License-Identifier: GPL-2.0-or-later
/* A network card whose cable is a tap interface of the host; the host's bridge joins the VMs of a group. */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vmm.h"

#define NET_ID 1
#define FEATURE_MAC (1ULL << 5)
#define HEADER 12			/* virtio 1.2, 5.1.6: all zero without offloads, but for the number of buffers */
#define FRAME_MAX 1536

static int tap = -1;
static uint8_t mac[6];

static void transmit(struct device *device, const struct iovec *parts, int count)
{
	struct iovec frame[QUEUE_MAX];
	size_t skip = HEADER;
	int used = 0;

	(void)device;
	for (int i = 0; i < count; i++) {
		size_t hide = skip < parts[i].iov_len ? skip : parts[i].iov_len;

		skip -= hide;
		if (hide == parts[i].iov_len)
			continue;
		frame[used].iov_base = (char *)parts[i].iov_base + hide;
		frame[used++].iov_len = parts[i].iov_len - hide;
	}
	if (used && writev(tap, frame, used) < 0 && errno != EAGAIN && errno != EIO)	/* EIO: the interface is down */
		die("tap: %m");
}

void net_receive(struct device *device)
{
	static uint8_t data[HEADER + FRAME_MAX];
	struct chain chain;
	ssize_t n;

	while (can_receive(device)) {
		n = read(tap, data + HEADER, FRAME_MAX);
		if (n <= 0)
			return;
		memset(data, 0, HEADER);
		data[10] = 1;		/* num_buffers */
		if (!take_chain(device, RECEIVE, &chain))
			return;
		give_back(device, RECEIVE, &chain, scatter(chain.part, chain.count, data, HEADER + n));
	}
}

int net_fd(void)
{
	return tap;
}

/* As a bridge helper of other monitors does: the interface is up, and a port of the bridge. */
static void join(const char *name, const char *bridge)
{
	struct ifreq request = { 0 };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	strcpy(request.ifr_name, name);
	if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &request))
		die("tap interface %s: %m", name);
	request.ifr_flags |= IFF_UP;
	if (ioctl(fd, SIOCSIFFLAGS, &request))
		die("tap interface %s: %m", name);
	if (bridge) {
		request.ifr_ifindex = if_nametoindex(name);
		snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", bridge);
		if (ioctl(fd, SIOCBRADDIF, &request) && errno != EBUSY)
			die("bridge %s: %m", bridge);
	}
	close(fd);
}

void net_init(struct vm *vm, struct device *device)
{
	struct ifreq request = { .ifr_flags = IFF_TAP | IFF_NO_PI };
	uint64_t state = vm->options.seed ^ 0x6d6163, word = random_word(&state);

	device->vm = vm;
	device->base = NET_BASE;
	device->irq = NET_IRQ;
	device->id = NET_ID;
	device->features = FEATURE_MAC;
	device->transmit = transmit;
	memcpy(mac, &word, sizeof(mac));
	mac[0] = (mac[0] & ~1) | 2;	/* unicast, locally administered */
	device->config = mac;
	device->config_size = sizeof(mac);
	if (strlen(vm->options.tap) >= IFNAMSIZ)
		die("the name of an interface has at most %d letters: %s", IFNAMSIZ - 1, vm->options.tap);
	strcpy(request.ifr_name, vm->options.tap);
	tap = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (tap < 0 || ioctl(tap, TUNSETIFF, &request))
		die("tap interface %s: %m", vm->options.tap);
	join(vm->options.tap, vm->options.bridge);
}
