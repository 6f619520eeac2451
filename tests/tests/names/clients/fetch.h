/* Fetches a page from each address of a name. Both clients of libraries use it. */

#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Sends a request, and prints the last line of the page. Returns 0 if there was one. */
static int fetch(const struct sockaddr *address, socklen_t length)
{
    static const char request[] = "GET / HTTP/1.0\r\n\r\n";
    char host[NI_MAXHOST] = "", page[4096];
    size_t count = 0;
    ssize_t part;

    getnameinfo(address, length, host, sizeof host, NULL, 0, NI_NUMERICHOST);
    int connection = socket(address->sa_family, SOCK_STREAM, 0);
    if (connection < 0 || connect(connection, address, length) < 0) {
        perror(host);
        return 1;
    }
    if (write(connection, request, sizeof request - 1) < 0) {
        perror(host);
        return 1;
    }
    while ((part = read(connection, page + count, sizeof page - 1 - count)) > 0)
        count += part;
    page[count] = 0;
    close(connection);
    char *body = strstr(page, "\r\n\r\n");
    printf("%s: %s", host, body ? body + 4 : "no page\n");
    return body == NULL;
}
