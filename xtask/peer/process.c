/*
 * Page fault, start and end of a process.
 */
#define _GNU_SOURCE
#include "bench.h"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096
#define PAGES 4096
#define PROCESSES 100

static unsigned char *area;

static void drop_memory(void)
{
    if (area)
        munmap(area, PAGES * PAGE);
}

static void use_fresh_memory(void)
{
    drop_memory();
    area = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (area == MAP_FAILED || madvise(area, PAGES * PAGE, MADV_NOHUGEPAGE))
        fail("mmap");
    /* The page tables of the area are not what is measured. */
    for (int i = 0; i < PAGES; i += 256)
        area[(size_t)i * PAGE] = 1;
}

static void touch(void)
{
    for (int i = 0; i < PAGES; i++)
        if (i % 256)
            ((volatile unsigned char *)area)[(size_t)i * PAGE] = 1;
}

static void reap(pid_t child)
{
    int status;

    if (child < 0 || waitpid(child, &status, 0) != child || status)
        fail("child");
}

/* vfork, not fork: the cheapest way that Linux has to start another program. */
static void spawn(void)
{
    static char *const argv[] = { "true", NULL };
    static char *const envp[] = { NULL };

    for (int i = 0; i < PROCESSES; i++) {
        pid_t child = vfork();
        if (!child) {
            execve("/true", argv, envp);
            _exit(127);
        }
        reap(child);
    }
}

static void fork_and_exit(void)
{
    for (int i = 0; i < PROCESSES; i++) {
        pid_t child = fork();
        if (!child)
            _exit(0);
        reap(child);
    }
}

void bench_process(void)
{
    if (wanted("page-fault")) {
        MEASURE("page-fault", SECTION_PAGE_FAULT, PAGES - PAGES / 256, use_fresh_memory(), touch());
        drop_memory(); /* so that fork has no such pages to copy */
    }
    if (wanted("spawn"))
        MEASURE("spawn", SECTION_SPAWN, PROCESSES, (void)0, spawn());
    if (wanted("fork-exit"))
        MEASURE("fork-exit", SECTION_FORK, PROCESSES, (void)0, fork_and_exit());
}
