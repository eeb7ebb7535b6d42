/*
 * What the network's rows talk to, as apps/bench's bench-net: an echo of datagrams (port 7), a sink of streams (9), a
 * source (19: eight bytes say how many it is to send, little-endian), nginx with one page (80), and the control
 * port (4000), where the host has the markers set around its load.
 */
#define _GNU_SOURCE
#include "bench.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <net/route.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PIECE (256u << 10)

static void set_address(int s, struct ifreq *request, unsigned long what, const char *address)
{
    struct sockaddr_in *in = (struct sockaddr_in *)&request->ifr_addr;

    memset(in, 0, sizeof *in);
    in->sin_family = AF_INET;
    inet_pton(AF_INET, address, &in->sin_addr);
    if (ioctl(s, what, request))
        fail(address);
}

static void up(int s, struct ifreq *request)
{
    request->ifr_flags = IFF_UP | IFF_RUNNING;
    if (ioctl(s, SIOCSIFFLAGS, request))
        fail(request->ifr_name);
}

/* As QEMU's user network wants it. */
static void configure(void)
{
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    struct ifreq lo = { .ifr_name = "lo" }, eth = { .ifr_name = "eth0" };
    struct rtentry route = { .rt_flags = RTF_UP | RTF_GATEWAY };
    struct sockaddr_in any = { .sin_family = AF_INET }, gateway = any;

    if (s < 0)
        fail("socket");
    up(s, &lo);
    for (int i = 0; i < 500 && ioctl(s, SIOCGIFHWADDR, &eth); i++)
        usleep(10000);
    set_address(s, &eth, SIOCSIFADDR, "10.0.2.15");
    set_address(s, &eth, SIOCSIFNETMASK, "255.255.255.0");
    up(s, &eth);
    inet_pton(AF_INET, "10.0.2.2", &gateway.sin_addr);
    memcpy(&route.rt_dst, &any, sizeof any);
    memcpy(&route.rt_genmask, &any, sizeof any);
    memcpy(&route.rt_gateway, &gateway, sizeof gateway);
    if (ioctl(s, SIOCADDRT, &route))
        fail("route");
    close(s);
}

static int bound(int type, uint16_t port)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(port) };
    int on = 1, s = socket(AF_INET, type, 0);

    if (s < 0 || setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) ||
        bind(s, (struct sockaddr *)&at, sizeof at) || (type == SOCK_STREAM && listen(s, 32)))
        fail("bind");
    return s;
}

static void *echo(void *unused)
{
    static char datagram[2048];
    int s = bound(SOCK_DGRAM, 7);

    (void)unused;
    for (;;) {
        struct sockaddr_in from;
        socklen_t len = sizeof from;
        ssize_t n = recvfrom(s, datagram, sizeof datagram, 0, (struct sockaddr *)&from, &len);
        if (n < 0 || sendto(s, datagram, (size_t)n, 0, (struct sockaddr *)&from, len) != n)
            fail("echo");
    }
    return NULL;
}

static void *sink(void *unused)
{
    static char piece[PIECE];
    int s = bound(SOCK_STREAM, 9);

    (void)unused;
    for (;;) {
        int c = accept(s, NULL, NULL);
        while (c >= 0 && read(c, piece, sizeof piece) > 0)
            ;
        close(c);
    }
    return NULL;
}

static void *source(void *unused)
{
    static char piece[PIECE];
    int s = bound(SOCK_STREAM, 19);

    (void)unused;
    for (;;) {
        uint64_t left = 0;
        int c = accept(s, NULL, NULL);
        if (c < 0 || recv(c, &left, sizeof left, MSG_WAITALL) != sizeof left)
            left = 0;
        while (left) {
            ssize_t n = write(c, piece, left < sizeof piece ? left : sizeof piece);
            if (n <= 0)
                break;
            left -= (uint64_t)n;
        }
        close(c);
    }
    return NULL;
}

static void start(void *(*service)(void *))
{
    pthread_t thread;

    if (pthread_create(&thread, NULL, service, NULL))
        fail("thread");
}

static void start_nginx(void)
{
    /* It looks its user up. */
    if (mkdir("/etc", 0755) || rename("/passwd", "/etc/passwd") || rename("/group", "/etc/group"))
        fail("/etc");
    int null = open("/dev/null", O_RDWR);
    pid_t pid = fork();

    if (pid < 0)
        fail("fork");
    if (!pid) {
        dup2(null, 0);
        /* The archive has no folders, so the libraries are where no loader looks. */
        execl("/loader", "nginx", "--library-path", "/", "/nginx", "-c", "/nginx.conf", "-e", "stderr",
              (char *)NULL);
        _exit(127);
    }
    close(null);
    /* Until it listens. */
    for (int i = 0; i < 500; i++) {
        struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(80) };
        int s = socket(AF_INET, SOCK_STREAM, 0), status;
        inet_pton(AF_INET, "127.0.0.1", &at.sin_addr);
        int there = !connect(s, (struct sockaddr *)&at, sizeof at);
        close(s);
        if (there)
            return;
        if (waitpid(pid, &status, WNOHANG) == pid)
            fail("nginx");
        usleep(10000);
    }
    fail("nginx does not listen");
}

/* A marker's number is part of an instruction. */
#define MARK(n)                                     \
    case n:                                         \
        if (order[0] == 's')                        \
            MARKER(SECTION_NET + n);                \
        else                                        \
            MARKER(0x8000 | (SECTION_NET + n));     \
        break

void bench_net(void)
{
    configure();
    start(echo);
    start(sink);
    start(source);
    start_nginx();
    int s = bound(SOCK_DGRAM, 4000);
    printf("bench-net ready\n");
    for (;;) {
        unsigned char order[2];
        struct sockaddr_in from;
        socklen_t len = sizeof from;
        if (recvfrom(s, order, sizeof order, 0, (struct sockaddr *)&from, &len) != sizeof order)
            continue;
        /* Between the load and the answer. */
        if (order[0] != 'q') {
            switch (order[1]) {
            MARK(0);
            MARK(1);
            MARK(2);
            MARK(3);
            MARK(4);
            }
        }
        sendto(s, order, sizeof order, 0, (struct sockaddr *)&from, len);
        if (order[0] == 'q')
            return;
    }
}
