#include <stdint.h>

int64_t blocked_now(void);
/* A pthread that at each instant due[i] notes the time there and writes a byte to fd[i], or, without fd,
 * calls goSubmitItem(i).  The arrays are C memory and stay. */
void blocked_start(int n, int *fd, int64_t *due);
