/*
 * The Linux side of the comparison: the only program of its initramfs, run as init.
 * It loads the modules named in /modules, runs the rows and powers off. For every
 * pass it prints `bench ROW id=SECTION n=OPERATIONS ns=TIME` on the console; the
 * instructions are counted outside, by the TCG plugin, between the same two points.
 */
#define _GNU_SOURCE
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static char rows[1024];

uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void report(const char *row, int section, unsigned long count, uint64_t ns)
{
    printf("bench %s id=%d n=%lu ns=%llu\n", row, section, count, (unsigned long long)ns);
}

/* Port 0xe9 takes one line that says how the run ended. */
static void say_outcome(const char *line)
{
    if (ioperm(0xe9, 1, 1))
        return;
    for (; *line; line++)
        outb((unsigned char)*line, 0xe9);
}

static noreturn void power_off(int status)
{
    fflush(stdout);
    tcdrain(1);
    say_outcome(status ? "exit 1\n" : "exit 0\n");
    reboot(RB_POWER_OFF);
    _exit(1);
}

noreturn void fail(const char *what)
{
    printf("bench-failed %s: %s\n", what, strerror(errno));
    power_off(1);
}

int wanted(const char *row)
{
    size_t len = strlen(row);

    if (!rows[0])
        return 1;
    for (const char *p = rows; p; p = strchr(p, ',')) {
        p += *p == ',';
        if (!strncmp(p, row, len) && (p[len] == ',' || !p[len]))
            return 1;
    }
    return 0;
}

/* Fills `rows` from bench.rows=A,B on the kernel's command line. */
static void read_command_line(void)
{
    char line[4096] = { 0 };
    int fd = open("/proc/cmdline", O_RDONLY);

    if (fd < 0 || read(fd, line, sizeof line - 1) < 0)
        fail("/proc/cmdline");
    close(fd);
    char *p = strstr(line, "bench.rows=");
    if (p && p[strlen("bench.rows=")] > ' ')
        sscanf(p, "bench.rows=%1023s", rows);
}

/* /modules lists one path a line, dependencies first. */
static void load_modules(void)
{
    char path[256];
    FILE *list = fopen("/modules", "r");

    if (!list)
        fail("/modules");
    while (fscanf(list, "%255s", path) == 1) {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST))
            fail(path);
        close(fd);
    }
    fclose(list);
}

/* The scheduler `none` does not sort or merge: the device is not a disk. */
static void use_no_io_scheduler(const char *disk)
{
    char path[64];

    snprintf(path, sizeof path, "/sys/block/%s/queue/scheduler", disk);
    int fd = open(path, O_WRONLY);
    if (fd < 0 || write(fd, "none", 4) != 4)
        fail(path);
    close(fd);
}

/*
 * Fixed priority, as on Bulkhead, and without the throttle that takes a twentieth of
 * the processor away from it. Linux's round trips cost a tenth less than under its
 * default policy.
 */
static void use_fixed_priority(void)
{
    struct sched_param priority = { .sched_priority = 10 };
    int fd = open("/proc/sys/kernel/sched_rt_runtime_us", O_WRONLY);

    if (fd < 0 || write(fd, "-1", 2) != 2)
        fail("sched_rt_runtime_us");
    close(fd);
    if (sched_setscheduler(0, SCHED_FIFO, &priority))
        fail("sched_setscheduler");
}

static int exists(const char *path)
{
    struct stat s;

    return !stat(path, &s);
}

/* The driver looks for namespaces in the background. */
static int appears(const char *path)
{
    for (int i = 0; i < 1000 && !exists(path); i++)
        usleep(10000);
    return exists(path);
}

int main(void)
{
    MARKER(0x8000 | SECTION_BOOT);
    mkdir("/proc", 0755);
    mkdir("/sys", 0755);
    mkdir("/dev", 0755);
    mkdir("/mnt", 0755);
    if (mount("proc", "/proc", "proc", 0, NULL) || mount("sysfs", "/sys", "sysfs", 0, NULL))
        fail("mount");
    if (mount("devtmpfs", "/dev", "devtmpfs", 0, NULL) && errno != EBUSY)
        fail("/dev");
    int console = open("/dev/console", O_RDWR);
    if (console < 0)
        fail("/dev/console");
    for (int fd = 0; fd < 3; fd++)
        dup2(console, fd);
    setvbuf(stdout, NULL, _IOLBF, 0);
    report("boot", SECTION_BOOT, 1, now_ns());

    read_command_line();
    use_fixed_priority();
    if (!strcmp(rows, "net")) {
        load_modules();
        bench_net();
        power_off(0);
    }
    bench_ipc();
    bench_process();
    load_modules();
    /* Before the first of these rows, so that nothing is looked for beside them. */
    int nvme = appears("/dev/nvme0n1");
    if (exists("/dev/vda")) {
        use_no_io_scheduler("vda");
        bench_raw();
    }
    if (nvme) {
        use_no_io_scheduler("nvme0n1");
        bench_nvme();
    }
    if (exists("/dev/vdb")) {
        use_no_io_scheduler("vdb");
        if (mount("/dev/vdb", "/mnt", "ext4", MS_RDONLY | MS_NOATIME, NULL))
            fail("/mnt");
        bench_ext4();
    }
    bench_irq();
    power_off(0);
}
