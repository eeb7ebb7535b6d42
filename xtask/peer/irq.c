/*
 * From a device's interrupt to a user-space handler and back.
 *
 * The device is QEMU's `edu`, which raises its interrupt when a register is written.
 * Linux's way to a handler in a process is UIO: `uio_pci_generic` masks the interrupt
 * in the function's command register, and the handler, after quieting the device,
 * unmasks it through config space. The handler waits in read(2) and has a higher
 * priority than the thread that raises the interrupt, so that each write is followed
 * at once by the handler. One operation is: raise, interrupt, wake-up,
 * switch, quiet the device, unmask, wait again, switch back.
 */
#define _GNU_SOURCE
#include "bench.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define INTERRUPTS 2000
#define EDU_ID "0x1234"
#define EDU_RAISE 0x60
#define EDU_ACKNOWLEDGE 0x64
#define COMMAND_HIGH 5             /* upper byte of the PCI command register */
#define COMMAND_HIGH_INTX_OFF 0x04 /* its interrupt-disable bit, 10 */

static volatile uint32_t *registers;
static int config, uio;
static _Atomic unsigned handled;

/* The sysfs directory of the first function with edu's vendor; empty when there is none. */
static void find_edu(char *dir, size_t size)
{
    DIR *all = opendir("/sys/bus/pci/devices");
    struct dirent *entry;

    dir[0] = 0;
    while (all && (entry = readdir(all)) && !dir[0]) {
        char path[300], vendor[8] = { 0 };
        snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/vendor", entry->d_name);
        int fd = open(path, O_RDONLY);
        if (fd < 0)
            continue;
        if (read(fd, vendor, 6) == 6 && !strcmp(vendor, EDU_ID))
            snprintf(dir, size, "/sys/bus/pci/devices/%s", entry->d_name);
        close(fd);
    }
    if (all)
        closedir(all);
}

static int open_in(const char *dir, const char *name)
{
    char path[300];

    snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, O_RDWR);
    if (fd < 0)
        fail(path);
    return fd;
}

static void unmask(unsigned char command_high)
{
    if (pwrite(config, &command_high, 1, COMMAND_HIGH) != 1)
        fail("unmask");
}

static void *handler(void *arg)
{
    unsigned char command_high;
    uint32_t count;

    (void)arg;
    if (pread(config, &command_high, 1, COMMAND_HIGH) != 1)
        fail("config");
    command_high &= (unsigned char)~COMMAND_HIGH_INTX_OFF;
    unmask(command_high);
    while (read(uio, &count, sizeof count) == sizeof count) {
        registers[EDU_ACKNOWLEDGE / 4] = 1;
        unmask(command_high);
        atomic_fetch_add(&handled, 1);
    }
    fail("uio");
}

static void raise_interrupts(void)
{
    for (int i = 0; i < INTERRUPTS; i++) {
        unsigned before = atomic_load(&handled);
        registers[EDU_RAISE / 4] = 1;
        while (atomic_load(&handled) == before)
            ;
    }
}

void bench_irq(void)
{
    char dir[300];
    pthread_t thread;
    pthread_attr_t attributes;
    struct sched_param priority = { .sched_priority = 50 };

    if (!wanted("irq-to-user"))
        return;
    find_edu(dir, sizeof dir);
    if (!dir[0])
        return;
    int fd = open("/sys/bus/pci/drivers/uio_pci_generic/new_id", O_WRONLY);
    if (fd < 0 || write(fd, "1234 11e8", 9) != 9)
        fail("uio_pci_generic");
    close(fd);
    uio = open("/dev/uio0", O_RDWR);
    if (uio < 0)
        fail("/dev/uio0");
    config = open_in(dir, "config");
    fd = open_in(dir, "resource0");
    registers = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (registers == MAP_FAILED)
        fail("resource0");
    pthread_attr_init(&attributes);
    pthread_attr_setinheritsched(&attributes, PTHREAD_EXPLICIT_SCHED);
    pthread_attr_setschedpolicy(&attributes, SCHED_FIFO);
    pthread_attr_setschedparam(&attributes, &priority);
    if (pthread_create(&thread, &attributes, handler, NULL))
        fail("pthread_create");
    MEASURE("irq-to-user", SECTION_IRQ, INTERRUPTS, (void)0, raise_interrupts());
}
