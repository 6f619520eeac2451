/* `libc PORT NAME…`: looks each name up by the C library that it is compiled for, and fetches a page from each address. */

#include "fetch.h"

int main(int count, char **words)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *found, *each;
    int failed = 0;

    for (int i = 2; i < count; i++) {
        int error = getaddrinfo(words[i], words[1], &hints, &found);
        if (error) {
            fprintf(stderr, "%s: %s\n", words[i], gai_strerror(error));
            failed = 1;
            continue;
        }
        for (each = found; each; each = each->ai_next)
            failed |= fetch(each->ai_addr, each->ai_addrlen);
        freeaddrinfo(found);
    }
    return failed;
}
