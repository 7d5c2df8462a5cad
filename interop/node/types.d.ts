export interface Task { id: string; type: string; tries?: number; payload: string | null }
