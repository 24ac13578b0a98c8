/* What the mock upstream and the load generator share: time, sockets, a growing array of numbers. */
#ifndef BENCH_H
#define BENCH_H

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_MS 1000000LL
#define NS_PER_S 1000000000LL

static inline int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * NS_PER_S + t.tv_nsec;
}

static inline void die(const char *what) {
    perror(what);
    exit(1);
}

static inline void *must(void *memory) {
    if (!memory) die("memory");
    return memory;
}

static inline struct sockaddr_in loopback(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static inline void no_delay(int fd) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static inline void watch(int epoll, int operation, int fd, uint32_t events, void *owner) {
    struct epoll_event event = {.events = events, .data.ptr = owner};
    if (epoll_ctl(epoll, operation, fd, &event) < 0) die("epoll_ctl");
}

/* Waits for events until the moment `until_ns`, at nanosecond resolution; -1 waits for ever. */
static inline int wait_until(int epoll, struct epoll_event *events, int most, int64_t until_ns) {
    struct timespec left, *timeout = NULL;
    if (until_ns >= 0) {
        int64_t ns = until_ns - now_ns();
        if (ns < 0) ns = 0;
        left.tv_sec = ns / NS_PER_S;
        left.tv_nsec = ns % NS_PER_S;
        timeout = &left;
    }
    int count = epoll_pwait2(epoll, events, most, timeout, NULL);
    if (count < 0 && errno != EINTR) die("epoll_pwait2");
    return count < 0 ? 0 : count;
}

struct numbers {
    uint32_t *at;
    size_t count, room;
};

static inline void numbers_add(struct numbers *numbers, uint32_t number) {
    if (numbers->count == numbers->room) {
        numbers->room = numbers->room ? numbers->room * 2 : 4096;
        numbers->at = must(realloc(numbers->at, numbers->room * sizeof *numbers->at));
    }
    numbers->at[numbers->count++] = number;
}

static inline int by_size(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static inline void numbers_sort(struct numbers *numbers) {
    if (numbers->count) qsort(numbers->at, numbers->count, sizeof *numbers->at, by_size);
}

/* Of sorted numbers; 0 where there are none. */
static inline uint32_t quantile(const struct numbers *numbers, double share) {
    if (!numbers->count) return 0;
    return numbers->at[(size_t)(share * (double)(numbers->count - 1))];
}

#endif
